"""Whatever the files of a price directory say, checking them gives a directory or faults, each with a line that exists."""

from __future__ import annotations

from typing import Any

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from meter.rating.book.price_directory import check_files
from meter.rating.book.price_files import PriceFile
from meter.rating.book.tables import TABLES

IDS = st.sampled_from(["a", "b", "é"])
WORDS = st.sampled_from(
    [
        *(
            "EUR",
            "JPY",
            "UTC",
            "Europe/Paris",
            "month",
            "exists",
            "increase",
            "sum",
            "maximum",
            "Hours",
            "GB",
            "GiB-Hours",
        ),
        *(
            "instance",
            "volume",
            "flavor",
            "size",
            "unit",
            "graduated",
            "volume",
            "package",
            "account",
            "project",
            "1/3600",
        ),
        *("1", "0", "0.5", "-1", "100", "hour", "Compute", ""),
    ]
)
SCALARS = st.one_of(
    IDS,
    WORDS,
    st.booleans(),
    st.integers(-2, 200),
    st.dates(),
    st.datetimes(),
    st.floats(allow_nan=False),
    st.text(max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "from", "until", "up_to", "price", "list", "flavor"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def table(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    keys = [field.alias or name for name, field in TABLES[kind].model_fields.items()]
    required = [field.alias or name for name, field in TABLES[kind].model_fields.items() if field.is_required()]
    likely = st.fixed_dictionaries(dict.fromkeys(required, IDS | WORDS))
    others = st.dictionaries(st.sampled_from([*keys, "other"]), VALUES, max_size=4)
    return st.builds(lambda one, two: {**one, **two}, likely, others)


DIRECTORIES = st.fixed_dictionaries({}, optional={kind: st.lists(table(kind), max_size=3) for kind in TABLES})


@given(DIRECTORIES)
def test_checking_any_files_never_fails(tables: dict[str, Any]) -> None:
    text = tomli_w.dumps(tables)
    checked = check_files([PriceFile("a.toml", text)])
    assert checked.directory is not None or any(not each.warning for each in checked.problems)
    lines = text.count("\n") + 1
    assert all(0 <= each.line <= lines and each.text for each in checked.problems)
