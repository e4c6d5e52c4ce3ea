"""The price directory as daemons use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from meter.interfaces import IDependency
from meter.interfaces import Unavailable
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.watched_directory import CHECK_SECONDS
from meter.rating.book.watched_directory import MAX_STABLE_CHECKS
from meter.rating.book.watched_directory import STABLE_SECONDS
from meter.rating.book.watched_directory import WatchedPriceDirectory

BOOK = '[[book]]\nname = "NAME"\ncurrency = "EUR"\ntimezone = "UTC"\nissuer = "x"\n'


class WatchedFiles:
    """A price directory, with calls in a thread that are counted, and done at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.calls: list[str] = []
        self.before: Callable[[], Any] = lambda: None
        self.watched = WatchedPriceDirectory(path, self.clock, in_thread=self._call)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.calls.append(function.__name__)
        self.before()
        return succeed(function(*arguments))

    def write(self, text: str, name: str = "a.toml") -> None:
        part = (
            self.path / f".{name}.part"
        )  # another inode, so that the change is seen within one tick of the file system
        part.write_text(text)
        part.rename(self.path / name)

    def ask(self) -> Deferred[PriceDirectory]:
        return Deferred.fromCoroutine(self.watched.current())

    def names(self) -> list[str]:
        """Return the books after the next look."""
        self.clock.advance(CHECK_SECONDS)
        found: list[Any] = []
        self.ask().addBoth(found.append)
        self.clock.pump([STABLE_SECONDS] * (MAX_STABLE_CHECKS + 1))
        [directory] = found
        if not isinstance(directory, PriceDirectory):
            directory.raiseException()
        return sorted(directory.books)

    @property
    def reads(self) -> int:
        return self.calls.count("check_directory")


@pytest.fixture
def files(tmp_path: Path) -> WatchedFiles:
    files = WatchedFiles(tmp_path)
    files.write(BOOK.replace("NAME", "one"))
    return files


def test_directory_is_a_dependency_that_says_what_it_has(files: WatchedFiles) -> None:
    assert verifyObject(IDependency, files.watched)
    assert not files.watched.readiness().ready
    assert files.names() == ["one"]
    assert files.watched.readiness() == (state := files.watched.readiness())
    assert (state.ready, state.reason) == (True, f"{files.path}: 1 book")


def test_files_are_read_again_only_when_they_have_changed(files: WatchedFiles) -> None:
    assert [files.names() for _ in range(5)] == [["one"]] * 5
    assert files.reads == 1
    files.write(BOOK.replace("NAME", "two"))
    assert [files.names() for _ in range(3)] == [["two"]] * 3
    files.write("", "b.toml")
    files.names()
    (files.path / "b.toml").unlink()
    files.names()
    assert files.reads == 4


def test_files_are_looked_at_once_in_a_while(files: WatchedFiles) -> None:
    files.ask()
    before = len(files.calls)
    for _ in range(100):
        assert files.ask().called
    assert len(files.calls) == before


def test_file_is_read_once_it_does_not_change_any_more(files: WatchedFiles) -> None:
    files.names()
    texts = [BOOK.replace("NAME", "two"), BOOK.replace("NAME", "three"), BOOK.replace("NAME", "four")]
    files.before = lambda: files.write(texts.pop(0)) if texts else None
    assert files.names() == ["four"]
    assert files.reads == 2


def test_file_that_never_stops_changing_leaves_the_last_good_directory(files: WatchedFiles) -> None:
    files.names()
    files.before = lambda: files.write(BOOK.replace("NAME", f"n{len(files.calls)}"))
    assert files.names() == ["one"]
    files.before = lambda: None
    assert files.names() != ["one"]


def test_others_do_not_wait_while_changed_files_are_read(files: WatchedFiles) -> None:
    files.names()
    files.write(BOOK.replace("NAME", "two"))
    files.clock.advance(CHECK_SECONDS)
    first = files.ask()
    assert not first.called
    assert list(files.ask().result.books) == ["one"]
    files.clock.pump([STABLE_SECONDS] * 2)
    assert list(first.result.books) == ["two"]


def test_faulty_directory_keeps_the_last_good_one_and_is_logged_once(files: WatchedFiles, logged_errors: Any) -> None:
    files.names()
    files.write(BOOK.replace("NAME", "two").replace("EUR", "EURO"))
    assert [files.names() for _ in range(4)] == [["one"]] * 4
    state = files.watched.readiness()
    assert (state.ready, state.needed) == (False, False)
    assert "a.toml:3: [[book]] currency 'EURO' is not a currency" in state.reason
    assert state.reason.endswith("; the last good one is used")
    assert len(logged_errors.flush()) == 1
    files.write(BOOK.replace("NAME", "two").replace("EUR", "EURO") + "# the same fault")
    assert files.names() == ["one"]
    assert len(logged_errors.flush()) == 0
    files.write(BOOK.replace("NAME", "two"))
    assert files.names() == ["two"]
    assert files.watched.readiness().ready


def test_file_that_is_written_while_it_is_read_is_read_again(files: WatchedFiles) -> None:
    later = [BOOK.replace("NAME", "two")]

    def write_after_reading() -> None:
        if "check_directory" in files.calls[:-1] and later:
            files.write(later.pop())

    files.before = write_after_reading
    assert files.names() == ["one"]
    assert files.names() == ["two"]


def test_directory_that_never_was_good_is_unavailable_until_it_is(files: WatchedFiles, logged_errors: Any) -> None:
    (files.path / "a.toml").unlink()
    for _ in range(2):
        with pytest.raises(Unavailable, match="there is no file"):
            files.names()
    files.clock.advance(CHECK_SECONDS)
    assert Deferred.fromCoroutine(files.watched.refresh()).called
    assert "nothing can be rated" in files.watched.readiness().reason
    assert len(logged_errors.flush()) == 1
    files.write(BOOK.replace("NAME", "one"))
    assert files.names() == ["one"]


def test_directory_that_is_gone_is_a_state(files: WatchedFiles, tmp_path: Path, logged_errors: Any) -> None:
    files.names()
    (files.path / "a.toml").unlink()
    files.path.rmdir()
    assert files.names() == ["one"]
    assert "No such file or directory" in files.watched.readiness().reason
    assert len(logged_errors.flush()) == 1
    files.path.mkdir()
    files.write(BOOK.replace("NAME", "two"))
    assert files.names() == ["two"]
