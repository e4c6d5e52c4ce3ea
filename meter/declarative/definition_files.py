"""Which files of a directory have definitions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


def definition_paths(directory: str, suffixes: Collection[str]) -> list[Path]:
    """Return the files of ``directory`` with one of ``suffixes``, by name; none for ``""`` and for a directory that does not exist.

    Raises ``OSError`` for one that cannot be read.
    """
    if not directory:
        return []
    try:
        return sorted(path for path in Path(directory).iterdir() if path.suffix in suffixes)
    except FileNotFoundError:
        return []
