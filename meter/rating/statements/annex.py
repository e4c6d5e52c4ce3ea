"""The annex of a statement: what each resource used of each SKU, by day, as JSON lines whose hash the statement states.

Each line is the canonical form (RFC 8785) of an :class:`~meter.rating.statements.statement.AnnexRow` and a line feed. Lines are
in the order of :func:`annex_order`, so that the same usage always has the same bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from decimal import localcontext
from typing import Any
from typing import NamedTuple

import msgspec
import rfc8785

from meter.rating.exact import EXACT
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.strict_json import decoded
from meter.rating.usage.sku_definition import values_order

_ROWS = msgspec.json.Decoder(AnnexRow)
_CANONICAL = msgspec.json.Encoder(order="sorted")

MAX_DIGITS = 400
"""Digits that a quantity may have before and after its point: sums of such quantities are exact in ``EXACT``."""

PAGE_BYTES = 256 * 1024
"""Size of the lines of a page before they are compressed, about; a project's last page is smaller."""


class AnnexPlace(NamedTuple):
    """What a row of the annex is sorted by."""

    project_id: str
    sku: str
    resource_id: str
    values: tuple[tuple[str, str], ...]


def annex_order(row: AnnexRow) -> AnnexPlace:
    """Return the place of ``row``: by project, SKU, resource and values; texts are compared by code points."""
    return AnnexPlace(row.project_id, row.sku, row.resource_id, values_order(row.values))


def annex_line(row: AnnexRow) -> bytes:
    """Return the line of ``row``; its quantities are written without zeros at their ends."""
    document: dict[str, Any] = {
        "days": {day: _digits(quantity) for day, quantity in row.days.items()},
        "project_id": row.project_id,
        "resource_id": row.resource_id,
        "sku": row.sku,
        "values": row.values,
    }
    if not all(name.isascii() for name in row.values):
        return rfc8785.dumps(document) + b"\n"
    # The same bytes, eight times as fast: in ASCII the order of code units is that of characters.
    return _CANONICAL.encode(document) + b"\n"


def _digits(quantity: Decimal) -> str:
    text = format(quantity, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def read_annex_line(line: bytes) -> AnnexRow:
    """Return the row in ``line``, which anybody may have written; ``ValueError`` if it is none."""
    try:
        row = msgspec.convert(decoded(line), type=AnnexRow)
        for day, quantity in row.days.items():
            date.fromisoformat(day)
            if not _is_exact(quantity):
                raise ValueError(f"{quantity:.20} is out of the bounds of numbers - at `$.days.{day}`")
    except (msgspec.MsgspecError, ValueError, OverflowError) as fault:
        raise ValueError(f"this is not a row of an annex: {fault}") from fault
    return row


def _is_exact(quantity: Decimal) -> bool:
    exponent = quantity.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_DIGITS and quantity.adjusted() < MAX_DIGITS


class AnnexDigest:
    """The hash of an annex, its number of rows, and the sum of its quantities by project and SKU, while rows are added in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last: AnnexPlace | None = None
        self.rows = 0
        self.quantities: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)

    def add(self, row: AnnexRow, line: bytes) -> None:
        """Add the next ``row``, whose ``line`` is given; ``ValueError`` if it is not after the one before."""
        place = annex_order(row)
        if self._last is not None and place <= self._last:
            raise ValueError(f"row {self.rows + 1} of the annex is not in order: {place} follows {self._last}")
        self._last = place
        self._hash.update(line)
        self.rows += 1
        key = row.project_id, row.sku
        with localcontext(EXACT):
            self.quantities[key] = sum(row.days.values(), self.quantities[key])

    @property
    def sha256(self) -> str:
        """The hash of the lines so far, in hexadecimal."""
        return self._hash.hexdigest()


class AnnexPage(NamedTuple):
    """Consecutive rows of one project, as they are stored: ``lines`` is compressed (zlib)."""

    project_id: str
    rows: int
    lines: bytes

    @classmethod
    def of(cls, project_id: str, lines: Sequence[bytes]) -> AnnexPage:
        """Return the page with ``lines``."""
        return cls(project_id, len(lines), zlib.compress(b"".join(lines)))

    def text(self) -> bytes:
        """Return the lines as they were hashed."""
        return zlib.decompress(self.lines)

    def annex_rows(self) -> Iterator[AnnexRow]:
        """Yield the rows."""
        for line in self.text().splitlines(keepends=True):
            yield _ROWS.decode(line)
