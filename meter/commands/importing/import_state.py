"""How far an import is: a file with the mark in the source up to which all samples are safe, replaced after each page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BadImportState(Exception):
    """A state file that cannot be used; the text says why and what to do."""


@dataclass(slots=True)
class ImportState:
    """The state of the import with this ``identity``: the source, and what is selected of it. It is kept in the file ``path``."""

    path: Path
    identity: Mapping[str, Any]
    mark: Any = None

    def read(self) -> None:
        """Take the mark from the file, if it exists; raises :class:`BadImportState` for that of another import."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            identity, mark = content["import"], content["mark"]
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
        self.mark = mark

    def check_writable(self) -> None:
        """Raise :class:`BadImportState` unless the file can be replaced."""
        self.write(self.mark)

    def write(self, mark: Any) -> None:
        """Replace the file; after a crash it is the old or the new one. Raises :class:`BadImportState`."""
        new = self.path.with_name(f"{self.path.name}.new")
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump({"import": self.identity, "mark": mark}, file)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise BadImportState(f"--state {self.path} cannot be written: {error}") from error
        self.mark = mark
