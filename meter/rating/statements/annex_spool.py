"""Collects the annex of a statement in a temporary file, so that its hash is known before it is stored."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from meter.rating.statements.annex import PAGE_BYTES
from meter.rating.statements.annex import AnnexDigest
from meter.rating.statements.annex import AnnexPage
from meter.rating.statements.annex import annex_line
from meter.rating.statements.statement import AnnexRow


class AnnexSpool:
    """The rows of an annex, added in order, and their ``digest``; the pages can be read again and again until it is closed."""

    def __init__(self) -> None:
        self.digest = AnnexDigest()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._pages: list[tuple[str, int, int, int]] = []
        self._project = ""
        self._lines: list[bytes] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, row: AnnexRow) -> None:
        """Add the next row; ``ValueError`` if it is not in order."""
        line = annex_line(row)
        self.digest.add(row, line)
        if self._lines and (row.project_id != self._project or self._size >= PAGE_BYTES):
            self.finish()
        self._project = row.project_id
        self._lines.append(line)
        self._size += len(line)

    def finish(self) -> None:
        """End the last page."""
        if not self._lines:
            return
        page = AnnexPage.of(self._project, self._lines)
        start = self._file.seek(0, 2)
        self._file.write(page.lines)
        self._pages.append((page.project_id, page.rows, start, len(page.lines)))
        self._lines, self._size = [], 0

    async def pages(self) -> AsyncIterator[AnnexPage]:
        """Yield the pages from the first."""
        for project_id, rows, start, size in self._pages:
            self._file.seek(start)
            yield AnnexPage(project_id, rows, self._file.read(size))
