"""Files and directories that only their owner may read: spools, locks, keys and databases hold usage data and secrets.

The modes do not depend on the umask of the process.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600


def make_private_directory(path: Path) -> None:
    """Create ``path`` and its missing parents with mode 0700; an existing directory keeps its mode."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        try:
            each.mkdir(PRIVATE_DIRECTORY)
        except FileExistsError:
            continue  # another process was faster
        each.chmod(PRIVATE_DIRECTORY)


def make_private_file(path: Path) -> None:
    """Create ``path`` with mode 0600 if it is missing; remove the rights of others from an existing one."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
    tighten(path)


def tighten(path: Path) -> None:
    """Give a file of this process's user mode 0600, unless it is missing."""
    with suppress(FileNotFoundError):
        status = path.stat()
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != PRIVATE_FILE:
            path.chmod(PRIVATE_FILE)


def open_to_others(directory: Path) -> str | None:
    """Return a warning if other users may read or enter an existing ``directory``, else ``None``.

    The mode is not changed: daemons of several users may share the directory.
    """
    try:
        mode = stat.S_IMODE(directory.stat().st_mode)
    except OSError:
        return None
    if not mode & 0o007:
        return None
    return f"{directory} has mode {mode:04o}: other users can list it; chmod 0700 {directory} prevents that"


def unwritable(directory: Path) -> str:
    """Return why no file can be created in ``directory``, which need not exist yet; ``""`` if one can. Nothing is written."""
    existing = directory.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is not a directory"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"user id {os.geteuid()} may not create files in {existing}"
    return ""
