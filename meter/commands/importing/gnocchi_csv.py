"""The source ``gnocchi-csv``: a file that ``gnocchi measures show -f csv`` has written. It does not say of what its points are."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from meter.commands.importing.gnocchi_points import COLUMNS
from meter.commands.importing.gnocchi_points import MAX_GRANULARITY_SECONDS
from meter.commands.importing.gnocchi_points import SOURCE
from meter.commands.importing.gnocchi_points import GnocchiMetric
from meter.commands.importing.gnocchi_points import ResourceRevision
from meter.commands.importing.gnocchi_points import samples_of
from meter.commands.importing.import_source import PAGE_SAMPLES
from meter.commands.importing.import_source import ImportSelection
from meter.commands.importing.import_source import ImportSourceError
from meter.commands.importing.import_source import NotImported
from meter.commands.importing.import_source import SourcePage
from meter.sample import SampleType

MORE = "more"
"""The key of what a line has beyond the columns of the first line, such as the decimals of ``1,5``."""

SHOWN_CHARACTERS = 80
"""How much of a wrong first line an error shows."""

BEGINNING = datetime.min.replace(tzinfo=UTC)


class GnocchiCsv:
    """The points of ``selection`` in the file ``path``, of a meter ``name`` of one resource, of the coarsest granularity or the given one."""

    unit = "points"

    def __init__(
        self,
        path: Path,
        selection: ImportSelection,
        *,
        name: str,
        type: SampleType,
        unit: str,
        resource_id: str,
        project_id: str | None,
        user_id: str | None,
        aggregation: str,
        granularity_seconds: float | None = None,
        page_samples: int = PAGE_SAMPLES,
    ) -> None:
        self._path = path
        self._selection = selection
        self._granularity_seconds = granularity_seconds
        self._page_samples = page_samples
        self._granularities: set[float] = set()
        self._points = 0
        revision = ResourceRevision(BEGINNING, project_id, user_id, {})
        self._metric = GnocchiMetric(str(path), name, type, unit, resource_id, aggregation, (revision,))
        self.identity: Mapping[str, Any] = {
            "source": f"{SOURCE}-csv",
            "file": str(path.absolute()),
            "granularity": granularity_seconds,
            "meter": name,
            "type": type,
            "unit": unit,
            "resource": resource_id,
            "project": project_id,
            "user": user_id,
            "aggregation": aggregation,
        }

    async def open(self) -> None:
        """Read the file once, for its granularities."""
        for row in self._rows():
            self._points += 1
            if (seconds := _granularity(row)) is not None:
                self._granularities.add(seconds)
        wanted = self._granularity_seconds
        if wanted is not None and wanted not in self._granularities:
            has = ", ".join(f"{each:g}" for each in sorted(self._granularities)) or "nothing"
            raise ImportSourceError(f"{self._path} has points of {has} s, not of {wanted:g} s")

    async def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    async def total(self, mark: Any) -> int:
        """Return the number of points after the first ``mark``."""
        return max(self._points - (mark or 0), 0)

    async def pages(self, mark: Any) -> AsyncIterator[SourcePage]:
        """Yield the points after the first ``mark``."""
        done = mark or 0
        granularity = self._granularity_seconds or max(self._granularities, default=0.0)
        rows = islice(self._rows(), done, None)
        while page := list(islice(rows, self._page_samples)):
            points = []
            invalid = []
            for number, row in enumerate(page, done + 1):
                seconds, value = _granularity(row), _number(row, "value")
                if MORE in row:
                    reason = f"the line has more columns than the first line: {','.join(row[MORE])!r:.40}"
                    invalid.append(NotImported(f"{self._path} line {number + 1}", self._metric.name, reason, dict(row)))
                elif seconds is None or value is None:
                    given = f"{row.get('granularity')!r:.40} and {row.get('value')!r:.40}"
                    reason = f"granularity and value must be numbers, not {given}"
                    if value is not None and _number(row, "granularity") is not None:
                        limit = f"more than 0 and at most {MAX_GRANULARITY_SECONDS:g} seconds"
                        reason = f"granularity must be {limit}, not {row['granularity']!r:.40}"
                    invalid.append(NotImported(f"{self._path} line {number + 1}", self._metric.name, reason, dict(row)))
                else:
                    points.append([row["timestamp"], seconds, value])
            samples, not_imported = samples_of(self._metric, points, granularity, self._selection)
            done += len(page)
            yield SourcePage(samples, [*invalid, *not_imported], done, len(page))

    def _rows(self) -> Any:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, restkey=MORE)
                names = reader.fieldnames or []
                if tuple(names[:3]) != COLUMNS:
                    first = (
                        f"its first line is {_shortened(','.join(names))!r}, not"
                        if names
                        else "it is empty, without the line"
                    )
                    raise ImportSourceError(
                        f"{self._path} is not what gnocchi measures show -f csv writes: {first} {','.join(COLUMNS)}"
                    )
                yield from reader
        except OSError as error:
            raise ImportSourceError(f"{self._path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            line = _first_line_not_utf_8(self._path)
            raise ImportSourceError(f"{self._path}: line {line} is not in UTF-8: save the file as UTF-8") from error
        except (ValueError, csv.Error) as error:
            raise ImportSourceError(f"{self._path} cannot be read: {error}") from error


def _granularity(row: Mapping[str, Any]) -> float | None:
    """Return the granularity in seconds, ``None`` if it is none: it would be taken for the coarsest one of the file."""
    seconds = _number(row, "granularity")
    return seconds if seconds is not None and 0 < seconds <= MAX_GRANULARITY_SECONDS else None


def _first_line_not_utf_8(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _number(row: Mapping[str, Any], name: str) -> float | None:
    try:
        return float(row[name])
    except (TypeError, ValueError, KeyError):
        return None
