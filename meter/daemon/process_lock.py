"""Exclusive locks of one process, which the kernel releases when the process ends, even after a crash.

A daemon with state on disk locks ``STATE_DIR/DAEMON.lock`` before it does anything else. A lock that is acquired before
``twistd`` daemonizes is inherited by the daemonized process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import socket
import struct
from pathlib import Path
from typing import IO

from twisted.application.service import Service

from meter.daemon.private_files import make_private_directory
from meter.daemon.private_files import tighten
from meter.settings.masked import masked

LOCKS_UNSUPPORTED = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class AlreadyLocked(Exception):
    """A lock is held by another process, or cannot be acquired; the text says what, by whom, and what to do."""


class LockFile(Service):
    """Holds the lock on ``path`` from construction until the process ends. ``setting`` names the setting of its directory.

    Raises :class:`AlreadyLocked` if another process holds the lock, or
    if the file system does not support locks.
    """

    def __init__(self, path: Path, *, owner: str, setting: str) -> None:
        self.setName(f"lock on {path}")
        try:
            make_private_directory(path.parent)
            self._file: IO[bytes] = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", 0)
            tighten(path)
        except OSError as error:
            raise AlreadyLocked(
                f"{setting}: {path} cannot be written ({error.strerror}): it must be in a directory in which"
                f" {owner} (user id {os.geteuid()}) may create files"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._file.read(4096).decode("utf-8", "replace")
            self._file.close()
            if error.errno in LOCKS_UNSUPPORTED:
                raise AlreadyLocked(
                    f"{setting}: {path} cannot be locked ({error.strerror}): network file systems may not support"
                    " locks; use a directory on a local disk"
                ) from error
            if not isinstance(error, BlockingIOError):
                raise AlreadyLocked(f"{setting}: {path} cannot be locked: {error.strerror}") from error
            raise AlreadyLocked(
                f"{setting}: {path} is locked by {_owner_text(holder)}. Only one {owner} may use this directory:"
                " stop that process, or set another directory for one of them"
            ) from error
        self._write_owner()

    def startService(self) -> None:
        """Write the owner again: ``twistd`` may have daemonized since the lock was acquired."""
        super().startService()
        self._write_owner()

    def release(self) -> None:
        """Release the lock."""
        self._file.close()

    def _write_owner(self) -> None:
        text = f"{os.getpid()}\n{platform.node()}\n{command_of(os.getpid())}\n".encode("utf-8", "replace")
        try:
            os.pwrite(self._file.fileno(), text, 0)
            os.ftruncate(self._file.fileno(), len(text))
        except OSError:
            pass  # the disk is full: the lock is still held, but the file does not name its owner


class ListenLock:
    """A lock on the endpoint ``listen`` among daemons of the same name on this host, held while the process lives.

    The lock is a socket in Linux's abstract namespace, which disappears with its process. Raises :class:`AlreadyLocked` if
    another process holds it. On other systems there is no lock.
    """

    def __init__(self, listen: str, *, owner: str, setting: str) -> None:
        self._socket: socket.socket | None = None
        if platform.system() != "Linux":
            return
        name = f"\0meter/{owner}/{listen}"[:100]
        lock_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock_socket.bind(name)
            lock_socket.listen(1)
        except OSError as error:
            lock_socket.close()
            if error.errno != errno.EADDRINUSE:
                return
            raise AlreadyLocked(
                f"{setting}: {listen} is used by another {owner}, {_listener(name)}. Two of them would measure everything"
                " twice: stop that process, or set another port and state_dir for one of them"
            ) from error
        self._socket = lock_socket

    def release(self) -> None:
        """Release the lock."""
        if self._socket is not None:
            self._socket.close()


def command_of(process: int) -> str:
    """Return the command line of a process with passwords masked; empty where it cannot be read."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = " ".join(word.decode("utf-8", "replace") for word in words if word)
    return masked(text)[:500]


def _owner_text(holder: str) -> str:
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
            return "process unknown"
    command = command_of(process)
    return f"process {process}" + (f" ({command})" if command else "")
