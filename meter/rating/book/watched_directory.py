"""The price directory as daemons use it: read again when its files have changed, with the last good one in the meantime."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.locks import Lock
from meter.daemon.services import sleep
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from meter.rating.book.book_problem import BookProblem
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_directory import CheckedDirectory
from meter.rating.book.price_directory import check_directory
from meter.rating.book.price_directory import check_files
from meter.rating.book.price_files import PriceFile
from meter.rating.book.price_files import file_paths

CHECK_SECONDS = 5.0
"""How often the files are looked at, at most."""

STABLE_SECONDS = 1.0
"""How long the files must have been unchanged before they are read, as several may be written one after the other."""

MAX_STABLE_CHECKS = 10
"""The number of checks after which files that change all the time are left until the next look at them."""

SHOWN_PROBLEMS = 3

Files = tuple[tuple[Any, ...], ...]
"""What tells whether files have changed: name, device, inode, size and times of each."""

InThread = Callable[..., Awaitable[Any]]
"""Calls a function with arguments in another thread, as :func:`twisted.internet.threads.deferToThread` does."""


@implementer(IDependency)
class WatchedPriceDirectory:
    """The price directory at ``path``. ``webhooks`` are the names of the configured targets.

    Files are looked at and read in a thread. A directory that became faulty is logged once, and the last good one is used
    until it is corrected; ``readiness`` says so.
    """

    _log = Logger()
    name = "price directory"

    def __init__(
        self,
        path: Path,
        clock: IReactorTime,
        *,
        webhooks: Collection[str] | None = None,
        in_thread: InThread = deferToThread,
    ) -> None:
        self._path = path
        self._clock = clock
        self._webhooks = webhooks
        self._in_thread = in_thread
        self._lock = Lock()
        self._files: Files | None = None
        self._checked_at: float | None = None
        self._directory: PriceDirectory | None = None
        self._problem = "it was not read yet"
        self._problems: Sequence[BookProblem] = ()

    def readiness(self) -> Readiness:
        """Return the state: degraded while the files are faulty."""
        if not self._problem:
            books = len(self._directory.books) if self._directory is not None else 0
            return Readiness(self.name, True, f"{self._path}: {books} book{'' if books == 1 else 's'}")
        used = "the last good one is used" if self._directory is not None else "nothing can be rated"
        return Readiness(self.name, False, f"{self._path}: {self._problem}; {used}", needed=False)

    async def current(self) -> PriceDirectory:
        """Return what the directory says now, or said when it was good; :class:`Unavailable` if it never was."""
        if self._directory is None or (self._is_due() and not self._lock.locked):
            await self._lock.acquire()
            try:
                if self._is_due():
                    await self._look()
            finally:
                self._lock.release()
        if self._directory is None:
            raise Unavailable(f"the price directory {self._path} cannot be used: {self._problem}")
        return self._directory

    @property
    def problems(self) -> Sequence[BookProblem]:
        """All that was wrong with the files when they were read last."""
        return self._problems

    async def check_text(self, text: str) -> CheckedDirectory:
        """Return what ``text`` says, and all that is wrong with it, as that of the only file of a directory; nothing is kept."""
        checked: CheckedDirectory = await self._in_thread(check_files, [PriceFile("new book", text)])
        return checked

    async def refresh(self) -> None:
        """Read the files again if they have changed. Whatever is wrong is said by ``readiness`` and in the log."""
        with suppress(Unavailable):
            await self.current()

    def _is_due(self) -> bool:
        return self._checked_at is None or self._clock.seconds() - self._checked_at >= CHECK_SECONDS

    async def _look(self) -> None:
        files = await self._in_thread(_files, self._path)
        if files != self._files:
            if self._directory is not None:
                files = await self._stable(files)
            if files is not None:
                # Looked at before it is read: what is written meanwhile is read again after the next look.
                self._files = files
                self._take(await self._in_thread(check_directory, self._path, self._webhooks))
        self._checked_at = self._clock.seconds()

    async def _stable(self, files: Files) -> Files | None:
        """Return the files once they do not change any more, ``None`` if they do not stop changing."""
        for _ in range(MAX_STABLE_CHECKS):
            await sleep(self._clock, STABLE_SECONDS)
            now = await self._in_thread(_files, self._path)
            if now == files:
                return files
            files = now
        return None

    def _take(self, checked: CheckedDirectory) -> None:
        self._problems = checked.problems
        if checked.directory is not None:
            if self._problem and self._directory is not None:
                self._log.info("the price directory {path} is correct again", path=self._path)
            self._directory = checked.directory
            self._problem = ""
            return
        errors = [str(each) for each in checked.problems if not each.warning]
        more = f" and {len(errors) - SHOWN_PROBLEMS} more" if len(errors) > SHOWN_PROBLEMS else ""
        problem = "; ".join(errors[:SHOWN_PROBLEMS]) + more
        if problem != self._problem:
            self._log.error(
                "the price directory {path} cannot be used, meter-rate check tells all that is wrong: {problem}",
                path=self._path,
                problem=problem,
            )
        self._problem = problem


def _files(path: Path) -> Files:
    """Return what changes when the files do. A directory or file that cannot be looked at is a state as well."""
    try:
        return tuple(_file(each) for each in file_paths(path))
    except OSError as fault:
        return ((fault.errno,),)


def _file(path: Path) -> tuple[Any, ...]:
    try:
        status = path.stat()
    except OSError as fault:
        return (path.name, fault.errno)
    return (path.name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
