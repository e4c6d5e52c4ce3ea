"""In-memory stand-ins for what plugins and the API work with, for Meter's tests and for yours.

:class:`MemoryStore` answers every question of :mod:`meter.query` in plain Python: where the meaning of a question is in
doubt, read it here. The others give a plugin its surroundings without a daemon, a broker or a hypervisor::

    cycle = FakeCycle({IHypervisor: FakeHypervisor([domain])})
    samples = await MyPollster().poll(cycle)
"""

from __future__ import annotations

import copy
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.interfaces import Domain
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.interfaces import IStore
from meter.interfaces import ISurroundings
from meter.interfaces import RequestError
from meter.interfaces import Unavailable
from meter.message import MeteringMessage
from meter.query import Aggregate
from meter.query import Grouping
from meter.query import MetadataMatch
from meter.query import Refusal
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.query import WriteResult
from meter.signature import SIGNATURE_FIELD

# --- the store -----------------------------------------------------------------------------------------------------


@implementer(IStore)
class MemoryStore:
    """Keeps samples in a mapping. Set ``unavailable`` to a text to have every call raise ``Unavailable`` with it."""

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._clock = clock or Clock()
        self._rows: dict[str, StoredSample] = {}
        self._messages: dict[str, Mapping[str, Any]] = {}
        self.unavailable: str | None = None

    async def write(self, messages: Sequence[MeteringMessage]) -> WriteResult:
        """Keep what is new, count what is known, refuse what PostgreSQL could not hold either."""
        self._check()
        stored = 0
        refused = []
        recorded_at = datetime.fromtimestamp(self._clock.seconds(), UTC)
        for index, message in enumerate(messages):
            reason = unstorable(message.fields)
            if reason is not None:
                refused.append(Refusal(index, reason))
            elif message.message_id not in self._rows:
                self._rows[message.message_id] = _row(message, recorded_at)
                self._messages[message.message_id] = copy.deepcopy(message.fields)
                stored += 1
        return WriteResult(stored, len(messages) - stored - len(refused), tuple(refused))

    async def samples(self, filter: SampleFilter, limit: int) -> Sequence[StoredSample]:
        """Return the newest first; samples of one moment come in the order of their ids, last first."""
        return self._matching(filter)[::-1][:limit]

    async def sample(self, message_id: str, filter: SampleFilter) -> StoredSample | None:
        """Return the sample with this id if ``filter`` lets it through."""
        self._check()
        row = self._rows.get(message_id)
        return row if row is not None and matches(row, filter) else None

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """Return one meter per name and resource; per name, type and unit where ``unique``."""
        rows = self._matching(filter)
        if unique:
            nobody = dict.fromkeys(("resource_id", "user_id", "project_id", "source"))
            kinds = sorted({(row.name, row.type, row.unit) for row in rows})
            return [StoredMeter(name=name, type=kind, unit=unit, **nobody) for name, kind, unit in kinds[:limit]]
        newest = {(row.name, row.resource_id): row for row in rows}
        fields = tuple(StoredMeter.__dataclass_fields__)
        return [
            StoredMeter(**{field: getattr(row, field) for field in fields}) for _, row in sorted(newest.items())[:limit]
        ]

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return one resource per id; all that is said of it comes from its matching samples alone."""
        by_resource: defaultdict[str, list[StoredSample]] = defaultdict(list)
        for row in self._matching(filter):
            by_resource[row.resource_id].append(row)
        return [
            StoredResource(
                resource_id=resource_id,
                user_id=rows[-1].user_id,
                project_id=rows[-1].project_id,
                source=rows[-1].source,
                first_sample=rows[0].timestamp,
                last_sample=rows[-1].timestamp,
                metadata=rows[-1].metadata,
                meters=tuple(sorted({row.name for row in rows})),
            )
            for resource_id, rows in sorted(by_resource.items())[:limit]
        ]

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """Return a row per window, unit and group, in that order."""
        rows = self._matching(query.filter)
        try:
            answer = _answer(query, rows)
        except OverflowError as error:
            raise RequestError(f"a period of {query.period} s leads beyond the year 9999") from error
        answer.sort(key=lambda one: (one.period_start, one.unit, [value or "" for value in one.group.values()]))
        return answer

    async def message(self, message_id: str) -> Mapping[str, Any] | None:
        """Return the metering message with this id as it was written."""
        self._check()
        return copy.deepcopy(self._messages.get(message_id))

    def _matching(self, filter: SampleFilter) -> list[StoredSample]:
        """Return the matching rows, oldest first."""
        self._check()
        rows = [row for row in self._rows.values() if matches(row, filter)]
        rows.sort(key=lambda row: (row.timestamp, row.message_id))
        return rows

    def _check(self) -> None:
        if self.unavailable is not None:
            raise Unavailable(self.unavailable)


def _row(message: MeteringMessage, recorded_at: datetime) -> StoredSample:
    return StoredSample(
        message_id=message.message_id,
        name=message.name,
        type=message.type,
        unit=message.unit,
        volume=message.volume,
        resource_id=message.resource_id,
        user_id=message.user_id,
        project_id=message.project_id,
        source=message.source,
        timestamp=message.timestamp,
        recorded_at=recorded_at,
        metadata=copy.deepcopy(message.metadata),
        signature=str(message.fields.get(SIGNATURE_FIELD) or ""),
        key_id=message.key_id,
    )


def unstorable(value: Any) -> str | None:
    """Return why no text column can hold ``value``, any JSON: a NUL or half a surrogate pair; ``None`` if one can."""
    if isinstance(value, str):
        if "\0" in value:
            return f"a text holds a NUL character: {value[:80]!r}"
        if any("\ud800" <= character <= "\udfff" for character in value):
            return f"a text holds half of a surrogate pair: {value[:80]!r}"
        return None
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = (*value, *value.values())
    elif isinstance(value, list | tuple):
        inner = value
    return next((reason for reason in map(unstorable, inner) if reason is not None), None)


# --- what a filter lets through ------------------------------------------------------------------------------------


def matches(row: StoredSample, filter: SampleFilter) -> bool:
    """Say whether ``filter`` lets ``row`` through."""
    return (
        all(getattr(row, "name" if field == "meter" else field) == value for field, value in filter.equals.items())
        and _after_start(row.timestamp, filter)
        and _before_end(row.timestamp, filter)
        and all(_has(row.metadata, match) for match in filter.metadata)
    )


def _after_start(timestamp: datetime, filter: SampleFilter) -> bool:
    if filter.start is None:
        return True
    return timestamp > filter.start if filter.after_start else timestamp >= filter.start


def _before_end(timestamp: datetime, filter: SampleFilter) -> bool:
    if filter.end is None:
        return True
    return timestamp <= filter.end if filter.through_end else timestamp < filter.end


def _has(metadata: Mapping[str, Any], match: MetadataMatch) -> bool:
    return any(_same(value, match.value) for value in values_at(metadata, match.key))


def _same(value: Any, wanted: str | int | float | bool | datetime) -> bool:
    """Compare with types: numbers with numbers, booleans with booleans, text with text; a time with a text of it."""
    if isinstance(wanted, datetime):
        return isinstance(value, str) and _moment(value) == wanted
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, str) or isinstance(value, str):
        return isinstance(wanted, str) and isinstance(value, str) and value == wanted
    return bool(value == wanted)


def _moment(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_ELEMENT = re.compile(r"\[(\d+)\]\.?(.*)", re.DOTALL)


def values_at(metadata: Any, key: str) -> Iterator[Any]:
    """Yield each value that the dotted ``key`` may mean: ``a.b`` is ``b`` within ``a``, and also a key with a dot in it."""
    if not key:
        yield metadata
    elif isinstance(metadata, Mapping):
        for name, value in metadata.items():
            if key == name:
                yield value
            elif key.startswith(f"{name}."):
                yield from values_at(value, key[len(name) + 1 :])
            elif key.startswith(f"{name}["):
                yield from values_at(value, key[len(name) :])
    elif isinstance(metadata, list | tuple):
        element = _ELEMENT.fullmatch(key)
        if element and int(element[1]) < len(metadata):
            yield from values_at(metadata[int(element[1])], element[2])


# --- statistics ----------------------------------------------------------------------------------------------------


def group_value(row: StoredSample, grouping: Grouping) -> str | None:
    """Return the value of ``row`` that ``grouping`` names: an id, or metadata as text (JSON where it is no text)."""
    kind, _, key = grouping.partition(".")
    if kind != "metadata":
        value: str | None = getattr(row, grouping)
        return value
    found = next(values_at(row.metadata, key), None)
    return found if found is None or isinstance(found, str) else json.dumps(found)


def _answer(query: StatisticsQuery, rows: list[StoredSample]) -> list[Statistics]:
    cells: defaultdict[tuple[Any, ...], list[StoredSample]] = defaultdict(list)
    for row in rows:
        group = tuple(group_value(row, grouping) for grouping in query.groupby)
        cells[_window_start(query, rows[0], row), row.unit, group].append(row)
    return [_statistics(query, start, group, cell) for (start, _, group), cell in cells.items()]


def _window_start(query: StatisticsQuery, oldest: StoredSample, row: StoredSample) -> datetime | None:
    if query.period is None:
        return None
    origin = query.filter.start or oldest.timestamp
    period = timedelta(seconds=query.period)
    return origin + (row.timestamp - origin) // period * period


def _statistics(
    query: StatisticsQuery, start: datetime | None, group: tuple[str | None, ...], rows: list[StoredSample]
) -> Statistics:
    """Make the row of one window, unit and group from its samples, oldest first."""
    first, last = rows[0].timestamp, rows[-1].timestamp
    return Statistics(
        unit=rows[0].unit,
        group=dict(zip(query.groupby, group, strict=True)),
        period=query.period or 0,
        period_start=first if start is None else start,
        period_end=last if start is None else start + timedelta(seconds=query.period or 0),
        first=first,
        last=last,
        values={aggregate.label: _value(aggregate, rows) for aggregate in query.aggregates},
    )


def _value(aggregate: Aggregate, rows: list[StoredSample]) -> float:
    volumes = [float(row.volume) for row in rows]
    match aggregate.function:
        case "max":
            return max(volumes)
        case "min":
            return min(volumes)
        case "sum":
            return sum(volumes)
        case "avg":
            return sum(volumes) / len(volumes)
        case "count":
            return len(volumes)
        case "stddev":  # of the population, not of a sample of it
            return statistics.pstdev(volumes)
        case "cardinality":
            values = {getattr(row, aggregate.param or "resource_id") for row in rows}
            return len(values - {None})


# --- what plugins find around them ---------------------------------------------------------------------------------


@implementer(ISurroundings)
class FakeSurroundings:
    """Surroundings that hold the given ``providers``, a mapping from interface to object, and a clock to advance."""

    def __init__(
        self,
        providers: Mapping[Any, Any] | None = None,
        *,
        clock: Clock | None = None,
        config: Any = None,
        daemon: str = "meter-compute",
    ) -> None:
        self.daemon = daemon
        self.config = config
        self.clock: Any = clock or Clock()
        self._providers = dict(providers or {})

    def provider(self, interface: Any) -> Any:
        """Return the provider of ``interface``; ``LookupError`` names the interface when there is none."""
        try:
            return self._providers[interface]
        except KeyError:
            raise LookupError(f"{self.daemon} has no provider of {interface.__name__}") from None


@implementer(ICycle)
class FakeCycle(FakeSurroundings):
    """One polling cycle; it starts at ``timestamp``, else at the clock's present moment."""

    def __init__(
        self,
        providers: Mapping[Any, Any] | None = None,
        *,
        timestamp: datetime | None = None,
        **surroundings: Any,
    ) -> None:
        super().__init__(providers, **surroundings)
        self.timestamp = timestamp or datetime.fromtimestamp(self.clock.seconds(), UTC)
        self._locks: defaultdict[Hashable, DeferredLock] = defaultdict(DeferredLock)
        self._outcomes: dict[Hashable, tuple[Any, Exception | None]] = {}

    async def shared(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return ``await make()`` of whoever asked first for ``key``; its failure is shared too."""
        lock = self._locks[key]
        await lock.acquire()
        try:
            if key not in self._outcomes:
                try:
                    self._outcomes[key] = (await make(), None)
                except Exception as error:
                    self._outcomes[key] = (None, error)
        finally:
            lock.release()
        value, failure = self._outcomes[key]
        if failure is not None:
            raise failure
        return value


@implementer(IHypervisor)
class FakeHypervisor:
    """A hypervisor that runs the given domains. Set ``failure`` to an exception to have it raised; ``calls`` counts."""

    def __init__(self, domains: Iterable[Domain] = (), *, uri: str = "test:///fake") -> None:
        self.uri = uri
        self.running = list(domains)
        self.failure: Exception | None = None
        self.calls = 0

    async def domains(self) -> Sequence[Domain]:
        """Return the domains that run now."""
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return list(self.running)
