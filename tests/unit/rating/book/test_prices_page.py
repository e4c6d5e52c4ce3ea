"""What docs/prices.rst and etc/prices.d say of the price book is so."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from meter.rating.book.price_directory import check_directory
from meter.rating.book.price_directory import check_files
from meter.rating.book.price_files import PriceFile
from meter.rating.book.tables import TABLES
from meter.rating.book.tables import MemberTable
from meter.rating.book.tables import TierTable

TOP = Path(__file__).parents[4]
PAGE = (TOP / "docs/prices.rst").read_text(encoding="utf-8")
EXAMPLES = [textwrap.dedent(each) for each in re.findall(r"\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", PAGE)]


def test_examples_of_the_page_are_a_price_directory() -> None:
    checked = check_files([PriceFile(f"{number}.toml", text) for number, text in enumerate(EXAMPLES)], ["pager"])
    assert list(map(str, checked.problems)) == []
    assert checked.directory is not None
    assert "instance/flavor=m1.large/2026-07-01" in {each.id for each in checked.directory.books["standard"].prices}


@pytest.mark.parametrize("kind", TABLES)
def test_every_table_and_key_is_explained_and_has_an_example(kind: str) -> None:
    keys = {field.alias or name for name, field in TABLES[kind].model_fields.items()}
    assert {key for key in keys if f"``{key}``" not in PAGE and f"``{key} =" not in PAGE} == set()
    assert any(f"[[{kind}]]\n" in text for text in EXAMPLES)


@pytest.mark.parametrize("model", [TierTable, MemberTable])
def test_every_key_within_a_table_has_an_example(model: type[TierTable | MemberTable]) -> None:
    keys = {field.alias or name for name, field in model.model_fields.items()}
    assert {key for key in keys if not re.search(rf"[{{,] ?{key} = ", "".join(EXAMPLES))} == set()


def test_example_file_is_a_price_directory_with_every_table() -> None:
    checked = check_directory(TOP / "etc/prices.d", webhooks=[])
    assert list(map(str, checked.problems)) == []
    text = (TOP / "etc/prices.d/example.toml").read_text(encoding="utf-8")
    assert {kind for kind in TABLES if f"\n[[{kind}]]\n" not in text} == set()
