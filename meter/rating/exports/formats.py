"""The formats in which a statement is handed over, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from meter.rating.exports.focus_columns import BILLING_PERIOD
from meter.rating.exports.focus_columns import COST_AND_USAGE
from meter.rating.exports.focus_columns import INVOICE_DETAIL
from meter.rating.exports.focus_columns import FocusColumn
from meter.rating.exports.focus_columns import FocusDataset
from meter.rating.exports.focus_columns import FocusVersion
from meter.rating.exports.focus_csv import focus_csv
from meter.rating.exports.focus_rows import FocusRow
from meter.rating.exports.focus_rows import billing_period
from meter.rating.exports.focus_rows import cost_and_usage
from meter.rating.exports.focus_rows import invoice_detail
from meter.rating.exports.statement_csv import statement_csv
from meter.rating.exports.statement_page import statement_page
from meter.rating.statements.canonical_parts import canonical_parts
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import Statement


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A text format: its media type and what writes it, piece by piece. ``sha256`` is that of the statement, where it is known."""

    media_type: str
    write: Callable[[SignedStatement, str], Iterator[str]]


def focus_columns(version: FocusVersion, dataset: FocusDataset = "cost-and-usage") -> Sequence[FocusColumn]:
    """Return the columns of a FOCUS data set. Only version 1.4 has others than *cost-and-usage*.

    :raises ValueError: the version has no such data set.
    """
    if dataset == "cost-and-usage":
        return COST_AND_USAGE[version]
    if version != "1.4":
        raise ValueError(f"FOCUS {version} has no data set {dataset}: it came with 1.4")
    return BILLING_PERIOD if dataset == "billing-period" else INVOICE_DETAIL


def focus_rows(
    statement: Statement,
    version: FocusVersion,
    dataset: FocusDataset = "cost-and-usage",
    annex: Iterable[AnnexRow] | None = None,
) -> Iterator[FocusRow]:
    """Return the rows of a FOCUS data set of ``statement``; those of costs and usage by resource with ``annex``."""
    if dataset == "cost-and-usage":
        return cost_and_usage(statement, version, annex)
    return billing_period(statement) if dataset == "billing-period" else invoice_detail(statement)


def _json(signed: SignedStatement, _sha256: str) -> Iterator[str]:
    yield '{"statement":'
    for part in canonical_parts(signed.statement):
        yield part.decode()
    yield f',"key_id":{json.dumps(signed.key_id)},"signature":{json.dumps(signed.signature)}}}'


def _csv(signed: SignedStatement, _sha256: str) -> Iterator[str]:
    return statement_csv(signed.statement)


def _focus(signed: SignedStatement, _sha256: str) -> Iterator[str]:
    return focus_csv(focus_columns("1.2"), focus_rows(signed.statement, "1.2"))


TEXT_FORMATS: Mapping[str, ExportFormat] = {
    "json": ExportFormat("application/json", _json),
    "csv": ExportFormat("text/csv", _csv),
    "html": ExportFormat("text/html", statement_page),
    "focus": ExportFormat("text/csv", _focus),
}
"""Formats of which a statement alone is enough, as the API offers them."""
