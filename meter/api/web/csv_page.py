"""What a page shows, as CSV: text is neutralized, numbers are exact, absence is an empty cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from collections.abc import Sequence
from datetime import datetime

from meter.api.responses import RawResponse
from meter.api.web.formats import iso
from meter.spreadsheet import neutralize

CSV = "text/csv"

Cell = str | int | float | datetime | None


def csv_response(name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> RawResponse:
    """Return ``rows`` below the header ``columns``, to be saved as the file ``name``."""
    content = io.StringIO(newline="")
    writer = csv.writer(content)
    writer.writerow(columns)
    writer.writerows([_cell(each) for each in row] for row in rows)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Vary": "Cookie"}
    return RawResponse(f"{CSV}; charset=utf-8", content.getvalue().encode(), headers)


def _cell(value: Cell) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return iso(value)
        case str():
            return neutralize(value)
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
    return repr(value)
