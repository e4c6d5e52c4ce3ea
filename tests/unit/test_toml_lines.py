"""In which lines the tables and keys of a TOML file stand."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies

from meter.toml_lines import toml_lines

TEXT = '''# a comment with [[price]]
[[price]]
sku = "vm" # [x]
tiers = [
    {up_to = "1", price = "2"}, # }
    # price = 7
    {price = "]"},
]

[price.match]
"a.b" = 1
'c"' = "x\\"]"
text = """
[[price]]
\\""" x = 1""""
more = \'\'\'
y = 1\'\'\'\'

[[price]]
a.b.c = 1979-05-27 07:32:00
d = []
[[price.sub]]
e = -1.5
[[price.sub]]
e = {f.g = [[1, 2], [3]]}
[other . "x y"]
z = true
'''

LINES = {
    ("price", 0): 2,
    ("price", 0, "sku"): 3,
    ("price", 0, "tiers"): 4,
    ("price", 0, "tiers", 0): 5,
    ("price", 0, "tiers", 0, "up_to"): 5,
    ("price", 0, "tiers", 0, "price"): 5,
    ("price", 0, "tiers", 1): 7,
    ("price", 0, "tiers", 1, "price"): 7,
    ("price", 0, "match"): 10,
    ("price", 0, "match", "a.b"): 11,
    ("price", 0, "match", 'c"'): 12,
    ("price", 0, "match", "text"): 13,
    ("price", 0, "match", "more"): 16,
    ("price", 1): 19,
    ("price", 1, "a"): 20,
    ("price", 1, "a", "b"): 20,
    ("price", 1, "a", "b", "c"): 20,
    ("price", 1, "d"): 21,
    ("price", 1, "sub", 0): 22,
    ("price", 1, "sub", 0, "e"): 23,
    ("price", 1, "sub", 1): 24,
    ("price", 1, "sub", 1, "e"): 25,
    ("price", 1, "sub", 1, "e", "f"): 25,
    ("price", 1, "sub", 1, "e", "f", "g"): 25,
    ("price", 1, "sub", 1, "e", "f", "g", 0): 25,
    ("price", 1, "sub", 1, "e", "f", "g", 0, 0): 25,
    ("price", 1, "sub", 1, "e", "f", "g", 0, 1): 25,
    ("price", 1, "sub", 1, "e", "f", "g", 1): 25,
    ("price", 1, "sub", 1, "e", "f", "g", 1, 0): 25,
    ("other",): 26,
    ("other", "x y"): 26,
    ("other", "x y", "z"): 27,
}


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n")])
def test_every_table_and_key_has_its_line(text: str) -> None:
    tomllib.loads(text)
    assert toml_lines(text) == LINES


@pytest.mark.parametrize("text", ["", "\n", "# x", "a = 1", "a = 1\n\n", "[a]", 'a = "" # b = 1'])
def test_short_texts_are_read_to_their_end(text: str) -> None:
    assert set(toml_lines(text)) == {(key,) for key in tomllib.loads(text)}


scalars = strategies.one_of(
    strategies.integers(-(2**60), 2**60),
    strategies.booleans(),
    strategies.text(strategies.characters(codec="utf-8"), max_size=8),
    strategies.dates(),
    strategies.floats(allow_nan=False),
)
keys = strategies.text(strategies.characters(codec="utf-8"), max_size=5)
documents = strategies.dictionaries(
    keys,
    strategies.recursive(
        scalars,
        lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path} | {each for key, element in inner for each in paths(element, (*path, key))}


@given(documents)
def test_all_paths_of_any_document_are_found(document: dict[str, Any]) -> None:
    text = tomli_w.dumps(document)
    found = set(toml_lines(text))
    # An array of tables has a line for each table, and none of its own.
    assert found <= paths(document)
    assert {each for each in paths(document) - found - {()} if not isinstance(value_at(document, each), list)} == set()


def value_at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document
