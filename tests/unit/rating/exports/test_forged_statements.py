"""Exports of documents that anybody may have written: each is refused with the field that is wrong, or written."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from meter.rating.exports.focus_csv import focus_csv
from meter.rating.exports.formats import TEXT_FORMATS
from meter.rating.exports.formats import focus_columns
from meter.rating.exports.formats import focus_rows
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import signed_document
from tests.statements import signed
from tests.statements import statement

HOSTILE: tuple[Any, ...] = (
    *(
        "",
        "\x00",
        "../../etc/passwd",
        "No/Where",
        "x" * 300,
        "\u202e",
        "NaN",
        "1e400",
        "0." + "3" * 50,
        "9" * 40,
        "-" + "9" * 40,
    ),
    *("0001-01-01", "9999-12-31", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-10-01T00:00:00"),
    *(0, -1, 2**53 - 1, -(2**53), 10**400, None, True, [], {}, ["x"], {"x": "y"}, {"\x00": "\ud7ff"}),
)


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values of a document."""
    if path:
        yield path
    if isinstance(document, dict):
        for name, member in document.items():
            yield from leaves(member, (*path, name))
    elif isinstance(document, list):
        for number, member in enumerate(document):
            yield from leaves(member, (*path, number))


DOCUMENT = json.loads(signed_document(signed(statement())))
PATHS = list(leaves(DOCUMENT))


def without(path: tuple[Any, ...]) -> Any:
    """Return a copy of the document, and the object that has the last of ``path``."""
    document = copy.deepcopy(DOCUMENT)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    return document, inner


def exported(document: Any) -> None:
    """Read a document and write it in all formats; :class:`ValueError` if it is refused."""
    signed = read_statement(json.dumps(document, ensure_ascii=False).encode())
    for each in TEXT_FORMATS.values():
        for _ in each.write(signed, ""):
            pass
    for dataset in ("cost-and-usage", "billing-period", "invoice-detail"):
        for _ in focus_csv(focus_columns("1.4", dataset), focus_rows(signed.statement, "1.4", dataset)):
            pass


def test_document_itself_is_exported() -> None:
    exported(DOCUMENT)
    assert len(PATHS) > 80


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_field_with_a_hostile_value_is_refused_or_exported(path: tuple[Any, ...]) -> None:
    for value in HOSTILE:
        document, inner = without(path)
        inner[path[-1]] = value
        try:
            exported(document)
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_field_that_is_missing_is_refused_or_exported(path: tuple[Any, ...]) -> None:
    document, inner = without(path)
    del inner[path[-1]]
    try:
        exported(document)
    except ValueError as error:
        assert str(error)
