"""A file with names of projects, domains and users, for hosts without Keystone."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import time
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.ceilometer_signature import BadSignature
from meter.collector.large_bodies import Runner
from meter.completeness.identities.identity_history import FILE
from meter.completeness.identities.identity_parts import reports_of
from meter.daemon.services import wall_seconds
from meter.identity_report import KINDS
from meter.identity_report import MAX_ID
from meter.identity_report import MAX_NAME
from meter.identity_report import NAMES_PER_REPORT
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityName
from meter.identity_report import storable_name
from meter.interfaces import IPublisher
from meter.interfaces import Unavailable
from meter.report import report_publication
from meter.sample import utc_text
from meter.signing_keys import SigningKey

MAX_FILE_BYTES = 8 * 1024 * 1024

HEADER = re.compile(r"\s*\[\[\s*[\"']?identity[\"']?\s*\]\]")


class BadIdentityFile(ValueError):
    """A file that cannot be read. The text has its path and, where it is known, the line."""


class IdentityEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[identity]]``: ``name`` is that of the ``kind`` with ``id``, ``since`` a time; without one, since it was read."""

    id: str
    name: str
    kind: IdentityKind = "project"
    domain: str | None = None
    since: Any = None


class IdentityFile:
    """The file at ``path``. When it has changed, all its names are published, signed with the ``key`` of the time.

    It is read in a thread. One that has errors is logged, once, and changes nothing; neither does one that is missing.
    """

    _log = Logger()

    def __init__(
        self,
        path: str,
        publisher: IPublisher,
        key: Callable[[datetime], SigningKey],
        clock: IReactorTime,
        off_reactor: Runner,
    ) -> None:
        self._path = Path(path)
        self._publisher = publisher
        self._key = key
        self._clock = clock
        self._off_reactor = off_reactor
        self._published: object = None
        self._problem = ""

    async def read_if_changed(self) -> None:
        """Publish the names if the file has changed since they were published last."""
        try:
            version = _version(self._path)
            if version == self._published:
                return
            now = datetime.fromtimestamp(wall_seconds(self._clock), UTC)
            names = await self._off_reactor(lambda: read_names(self._path, now))
            await self._publish(names, now)
        except BadIdentityFile as error:
            self._tell(f"{error}; the names that were read before stay")
        except Unavailable as error:
            self._tell(f"cannot be published now: {error}")
        else:
            self._published, self._problem = version, ""
            self._log.info("{path}: {count} names were read", path=str(self._path), count=len(names))

    async def _publish(self, names: Sequence[IdentityName], now: datetime) -> None:
        try:
            key = self._key(now)
        except BadSignature as error:
            raise Unavailable(str(error)) from error
        for kind in KINDS:
            of_kind = [name for name in names if name.kind == kind]
            for report in reports_of(FILE, kind, utc_text(now), of_kind, complete=True):
                await self._publisher.publish(report_publication("identities", report, key))

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            self._log.warn("names of projects, domains and users: {problem}", problem=problem)
        self._problem = problem


def _version(path: Path) -> object:
    try:
        status = os.stat(path)
    except OSError as error:
        raise BadIdentityFile(f"{path}: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_names(path: Path, now: datetime) -> list[IdentityName]:
    """Return the names in the file; raises :class:`BadIdentityFile`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise BadIdentityFile(f"{path}: the file has more than {MAX_FILE_BYTES} bytes")
        text = content.decode()
        document = tomllib.loads(text)
    except OSError as error:
        raise BadIdentityFile(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadIdentityFile(f"{path}: {error}") from error
    entries = document.pop("identity", [])
    if document or not isinstance(entries, list):
        raise BadIdentityFile(f"{path}: only [[identity]] is known, not {', '.join(document) or '[identity]'}")
    lines = [number for number, line in enumerate(text.split("\n"), 1) if HEADER.match(line)]
    return list(_checked(path, entries, lines, now))


def _checked(path: Path, entries: list[object], lines: Sequence[int], now: datetime) -> Iterator[IdentityName]:
    seen: dict[tuple[str, str], set[datetime | None]] = {}
    for index, each in enumerate(entries):
        place = f"{path}, line {lines[index]}" if len(lines) == len(entries) else f"{path}, entry {index + 1}"
        try:
            entry = msgspec.convert(each, IdentityEntry)
        except msgspec.ValidationError as error:
            raise BadIdentityFile(f"{place}: {error}") from error
        if entry.since is not None and not isinstance(entry.since, date):
            raise BadIdentityFile(f"{place}: since must be a date, or a date and a time, without quotes")
        since = None if entry.since is None else _time(entry.since)
        others = seen.setdefault((entry.kind, entry.id), set())
        if problem := _problem(entry, since, others, now):
            raise BadIdentityFile(f"{place}: {problem}")
        others.add(since)
        yield IdentityName(
            kind=entry.kind,
            id=entry.id,
            name=entry.name,
            since=utc_text(since or now),
            domain=entry.domain,
            exact=since is not None,
        )


def _problem(entry: IdentityEntry, since: datetime | None, others: set[datetime | None], now: datetime) -> str:
    for text, longest in ((entry.id, MAX_ID), (entry.domain or "", MAX_ID), (entry.name, MAX_NAME)):
        if len(text) > longest or text != storable_name(text):
            return f"a text has at most {longest} characters and no NUL: {text[:60]!r}"
    if not entry.id:
        return "the id must not be empty"
    if since is not None and since > now:
        return f"since must not be in the future: {since}"
    if others and (since is None or None in others):
        return f"several names of {entry.kind} {entry.id!r} need since"
    if len(others) >= NAMES_PER_REPORT:
        return f"{entry.kind} {entry.id!r} has more than {NAMES_PER_REPORT} names"
    if since in others:
        return f"{entry.kind} {entry.id!r} has two names since {since}"
    return ""


def _time(value: datetime | date) -> datetime:
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
