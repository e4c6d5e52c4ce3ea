"""The parts of the canonical form are, joined, the canonical form."""

from __future__ import annotations

from typing import Any

import pytest

from meter.rating.statements.canonical_parts import canonical_parts
from meter.rating.statements.statement import canonical
from tests.statement_documents import statement


@pytest.mark.parametrize("changes", [{}, {"lines": ()}, {"unpriced": (), "unmetered": ()}, {"closed_at": None}])
def test_the_parts_are_what_is_signed(changes: dict[str, Any]) -> None:
    document = statement(**changes)
    assert b"".join(canonical_parts(document)) == canonical(document)


def test_no_part_has_more_than_one_line() -> None:
    assert all(part.count(b'"tax_category"') <= 1 for part in canonical_parts(statement()))
