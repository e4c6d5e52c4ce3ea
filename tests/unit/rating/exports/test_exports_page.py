"""docs/statements-exports.rst names the formats, columns and charge categories that there are."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import get_args

from meter.api.handlers.cloudkitty import MAX_DAYS
from meter.api.rendering.statements import StatementEntry
from meter.commands.rate.export import FORMATS
from meter.rating.costs.cost_query import FIELDS
from meter.rating.costs.cost_query import TIME_GROUPS
from meter.rating.exports.focus_columns import COST_AND_USAGE
from meter.rating.exports.focus_columns import INVOICE_DETAIL
from meter.rating.exports.focus_columns import FocusDataset
from meter.rating.exports.focus_rows import CATEGORIES

PAGE = (Path(__file__).parents[4] / "docs" / "statements-exports.rst").read_text(encoding="utf-8")


def test_every_format_is_in_the_table() -> None:
    assert set(re.findall(r"(?m)^``([a-z][a-z0-9.-]*)``  +\S", PAGE)) == {*FORMATS, *CATEGORIES, "correction"}


def test_every_data_set_is_named() -> None:
    assert all(f"``{dataset}``" in PAGE for dataset in get_args(FocusDataset))


def test_charge_categories_are_those_of_the_rows() -> None:
    documented = dict(re.findall(r"(?m)^``([a-z]+)`` +(Usage|Purchase|Adjustment|Credit|Tax)\b", PAGE))
    assert documented == dict(CATEGORIES)


def test_columns_that_are_named_exist() -> None:
    known = {column.name for columns in (*COST_AND_USAGE.values(), INVOICE_DETAIL) for column in columns}
    named = set(re.findall(r"``((?:x_)?[A-Z][A-Za-z]+)``", PAGE)) - {"Accept"}
    assert named <= known


def test_entry_of_the_list_has_the_documented_fields() -> None:
    [example] = re.findall(r"(?ms)^    \[\n.*?^    \]\n", PAGE)
    [entry] = json.loads(textwrap.dedent(example))
    assert list(entry) == list(StatementEntry.__struct_fields__)


def test_keys_and_the_limit_of_costs_are_documented() -> None:
    assert all(f"``{name}``" in PAGE for name in (*FIELDS, *TIME_GROUPS) if name != "time")
    assert f"at most {MAX_DAYS} days" in PAGE
