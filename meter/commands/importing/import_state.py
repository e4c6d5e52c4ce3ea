"""How far an import is: a file with the mark in the source up to which all samples are safe, replaced after each page."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any


class BadImportState(Exception):
    """A state file that cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ImportTotals:
    """What all runs of an import did together, up to its mark: samples, by name of the meter, and records that were not imported."""

    meters: Mapping[str, int] = field(default_factory=dict)
    not_imported: int = 0

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(self.meters.values())

    def plus(self, meters: Mapping[str, int], not_imported: int) -> ImportTotals:
        """Return these totals with what one more run did."""
        return ImportTotals(dict(Counter(self.meters) + Counter(meters)), self.not_imported + not_imported)


@dataclass(slots=True)
class ImportState:
    """The state of the import with this ``identity``: the source, and what is selected of it. It is kept in the file ``path``.

    ``totals`` are ``None`` in a file of an earlier version. ``finished``: the source had nothing more after the mark.
    """

    path: Path
    identity: Mapping[str, Any]
    mark: Any = None
    totals: ImportTotals | None = field(default_factory=ImportTotals)
    finished: bool = False

    def read(self) -> None:
        """Take the mark from the file, if it exists; raises :class:`BadImportState` for that of another import."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            identity, mark = content["import"], content["mark"]
            totals = None if content.get("totals") is None else ImportTotals(**content["totals"]).plus({}, 0)
            finished = bool(content.get("finished"))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadImportState(
                f"--state {self.path} is not the state of an import ({error}): name another file"
            ) from error
        if identity != self.identity:
            different = sorted(
                name for name in {*identity, *self.identity} if identity.get(name) != self.identity.get(name)
            )
            raise BadImportState(
                f"--state {self.path} is of another import, which differs in {', '.join(different)}: name another file with"
                " --state, or begin again with --restart"
            )
        self.mark, self.totals, self.finished = mark, totals, finished

    def check_writable(self) -> None:
        """Raise :class:`BadImportState` unless the file can be replaced."""
        self.write(self.mark, self.totals, finished=self.finished)

    def write(self, mark: Any, totals: ImportTotals | None = None, *, finished: bool = False) -> None:
        """Replace the file; after a crash it is the old or the new one. Raises :class:`BadImportState`."""
        new = self.path.with_name(f"{self.path.name}.new")
        try:
            with new.open("w", encoding="utf-8") as file:
                written = None if totals is None else asdict(totals)
                json.dump({"import": self.identity, "mark": mark, "totals": written, "finished": finished}, file)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise BadImportState(f"--state {self.path} cannot be written: {error}") from error
        self.mark, self.totals, self.finished = mark, totals, finished
