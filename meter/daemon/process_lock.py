"""Exclusive ownership by one process: a lock file that the kernel releases when its owner ends, however it ends.

A daemon that keeps things on disk locks ``STATE_DIR/DAEMON.lock`` before it does anything. A lock taken before ``twistd``
goes into the background is inherited by the process that goes on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import socket
import struct
from pathlib import Path
from typing import IO

from twisted.application.service import Service

LOCKS_UNSUPPORTED = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Taken(Exception):
    """Something that belongs to another process, or cannot be locked; the text says what, by whom, and what to do."""


class LockFile(Service):
    """Holds the lock on ``path`` from its making until the process ends. ``setting`` is what names its directory.

    ``mode`` is that of the directory, where it is made. Raises :class:`Taken` where another process holds the lock, or
    where nobody can.
    """

    def __init__(self, path: Path, *, owner: str, setting: str, mode: int = 0o777) -> None:
        self.setName(f"lock on {path}")
        try:
            path.parent.mkdir(mode=mode, parents=True, exist_ok=True)
            self._file: IO[bytes] = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", 0)
        except OSError as error:
            raise Taken(
                f"{setting}: {path} cannot be written ({error.strerror}): it must lie in a directory in which"
                f" {owner} (user id {os.geteuid()}) may make files"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._file.read(4096).decode("utf-8", "replace")
            self._file.close()
            if error.errno in LOCKS_UNSUPPORTED:
                raise Taken(
                    f"{setting}: {path} cannot be locked ({error.strerror}): network file systems may have no locks;"
                    " give a directory on a local disk"
                ) from error
            if not isinstance(error, BlockingIOError):
                raise Taken(f"{setting}: {path} cannot be locked: {error.strerror}") from error
            raise Taken(
                f"{setting}: {path} is locked by {_described(holder)}. Only one {owner} may use this directory:"
                " stop that process, or give each a directory of its own"
            ) from error
        self._tell_owner()

    def startService(self) -> None:
        """Write down who holds the lock: ``twistd`` may have gone into the background since it was taken."""
        super().startService()
        self._tell_owner()

    def release(self) -> None:
        """Let others have the lock."""
        self._file.close()

    def _tell_owner(self) -> None:
        text = f"{os.getpid()}\n{platform.node()}\n{command_of(os.getpid())}\n".encode("utf-8", "replace")
        try:
            os.pwrite(self._file.fileno(), text, 0)
            os.ftruncate(self._file.fileno(), len(text))
        except OSError:
            pass  # a full disk: the lock holds, its owner's name is a courtesy


class ListenLock:
    """Marks that a daemon of this name listens as ``listen`` says, for others of its name on this host.

    The mark is a socket in Linux's abstract namespace: it is gone with its process. Raises :class:`Taken` where another
    process has it. Elsewhere than on Linux nothing is marked.
    """

    def __init__(self, listen: str, *, owner: str, setting: str) -> None:
        self._socket: socket.socket | None = None
        if platform.system() != "Linux":
            return
        name = f"\0meter/{owner}/{listen}"[:100]
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mark.bind(name)
            mark.listen(1)
        except OSError as error:
            mark.close()
            if error.errno != errno.EADDRINUSE:
                return
            raise Taken(
                f"{setting}: {listen} is used by another {owner}, {_listener(name)}. Two of them would measure everything"
                " twice: stop that process, or give each a port and a state_dir of its own"
            ) from error
        self._socket = mark

    def release(self) -> None:
        """Let others have the mark."""
        if self._socket is not None:
            self._socket.close()


def command_of(process: int) -> str:
    """Return the command line of a process, without what may be a password; empty where it cannot be read."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = " ".join(word.decode("utf-8", "replace") for word in words if word)
    return re.sub(r"//[^/@\s]+@", "//***@", text)[:500]


def _described(holder: str) -> str:
    process, host, command = [*holder.split("\n"), "", "", ""][:3]
    if not process:
        return "another process"
    where = f" on {host}" if host and host != platform.node() else ""
    return f"process {process}{where}" + (f" ({command})" if command else "")


def _listener(name: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.setblocking(False)
            probe.connect(name)
            process, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return "whose process is not known"
    command = command_of(process)
    return f"process {process}" + (f" ({command})" if command else "")
