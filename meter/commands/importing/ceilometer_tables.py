"""The tables in which Ceilometer's SQL storage kept samples, Juno to Ocata: ``sample``, ``meter`` and ``resource``.

They are read with SQLAlchemy, in pages in the order of the primary key, in a thread. MySQL has times as decimal seconds since 1970,
PostgreSQL and SQLite have timestamps, all in UTC.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from typing import Any
from typing import NamedTuple
from typing import TypeVar

from twisted.internet.interfaces import IReactorFromThreads

from meter.commands.importing.ceilometer_url import database_url
from meter.commands.importing.ceilometer_url import engine_of
from meter.commands.importing.ceilometer_url import sqlalchemy_library
from meter.commands.importing.ceilometer_url import without_password
from meter.commands.importing.import_source import IMPORTED_FROM
from meter.commands.importing.import_source import PAGE_SAMPLES
from meter.commands.importing.import_source import ImportSelection
from meter.commands.importing.import_source import ImportSourceError
from meter.commands.importing.import_source import NotImported
from meter.commands.importing.import_source import SourcePage
from meter.commands.importing.import_source import SourceSample
from meter.commands.importing.import_source import derived_id
from meter.daemon.threads import CallThread
from meter.interfaces import Unavailable
from meter.sample import RESERVED_METADATA
from meter.sample import BadSample
from meter.sample import Sample
from meter.sample import with_reserved

SOURCE = "ceilometer"
"""The value of ``imported_from`` of the samples from these tables."""

COLUMNS = {
    "sample": {"id", "meter_id", "resource_id", "volume", "timestamp", "message_id"},
    "meter": {"id", "name", "type", "unit"},
    "resource": {"internal_id", "resource_id", "user_id", "project_id", "source_id", "resource_metadata"},
}

CACHED_RESOURCES = 10_000
"""Rows of ``resource`` in memory; each has the metadata of a resource at some time."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FIRST_TIME = datetime.min.replace(tzinfo=UTC)
"""The first time that Python can represent."""

T = TypeVar("T")


class _Meter(NamedTuple):
    name: str
    type: str
    unit: str


class _Resource(NamedTuple):
    """A row of ``resource``; ``problem`` says why its metadata cannot be imported."""

    resource_id: str
    user_id: str | None
    project_id: str | None
    source: str | None
    metadata: Mapping[str, Any]
    problem: str


class CeilometerTables:
    """The samples of ``selection`` in the database at ``url``, a URL of SQLAlchemy.

    ``password`` replaces that in the URL. ``interval_seconds`` is the polling interval of the samples, if it is known.
    """

    unit = "samples"

    def __init__(
        self,
        reactor: IReactorFromThreads,
        url: str,
        selection: ImportSelection,
        *,
        interval_seconds: float | None = None,
        password: str = "",
        page_samples: int = PAGE_SAMPLES,
    ) -> None:
        self._url = database_url(url)
        self._selection = selection
        self._interval_seconds = interval_seconds
        self._password = password
        self._page_samples = page_samples
        self._thread = CallThread(reactor, "meter-import")
        self._resources: dict[int, _Resource] = {}
        self._meters: dict[int, _Meter] = {}
        self._engine: Any = None
        self._tables: dict[str, Any] = {}
        self.identity: Mapping[str, Any] = {"source": SOURCE, "url": without_password(self._url)}

    async def open(self) -> None:
        """Connect, and look at the tables."""
        await self._call(self._open)

    async def total(self, mark: Any) -> int:
        """Return the number of samples after the id ``mark``."""
        return await self._call(lambda: self._count(mark))

    async def pages(self, mark: Any) -> AsyncIterator[SourcePage]:
        """Yield the samples with greater ids than ``mark``."""
        while rows := await self._call(lambda after=mark: self._rows(after)):  # type: ignore[misc]
            samples: list[SourceSample] = []
            refused: list[NotImported] = []
            for row in rows:
                found = self._imported(row)
                (samples if isinstance(found, SourceSample) else refused).append(found)  # type: ignore[arg-type]
            mark = rows[-1].id
            yield SourcePage(samples, refused, mark, len(rows))

    async def close(self) -> None:
        """Disconnect."""
        if self._engine is not None:
            await self._call(self._engine.dispose)
        self._thread.finish()

    async def _call(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the thread; errors of the database become those of this command."""
        errors: Any = sqlalchemy_library().exc
        try:
            return await self._thread.call(function)
        except (errors.OperationalError, errors.InterfaceError, errors.TimeoutError) as error:
            raise Unavailable(f"{without_password(self._url)}: {_first_line(error)}") from error
        except errors.SQLAlchemyError as error:
            raise ImportSourceError(f"{without_password(self._url)}: {_first_line(error)}") from error

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _open(self) -> None:
        sql = sqlalchemy_library()
        self._engine = engine_of(self._url, self._password)
        if self._engine.dialect.name == "sqlite":
            sql.event.listen(self._engine, "connect", _read_all_texts)
        inspector = sql.inspect(self._engine)
        there = set(inspector.get_table_names())
        for name, needed in COLUMNS.items():
            columns = {each["name"] for each in inspector.get_columns(name)} if name in there else set()
            if missing := sorted(needed - columns):
                raise ImportSourceError(
                    f"{without_password(self._url)} is no database of Ceilometer's SQL storage (Juno to Ocata): its table"
                    f" {name} has no {', '.join(missing)}"
                    if name in there
                    else f"{without_password(self._url)} is no database of Ceilometer's SQL storage (Juno to Ocata): it has no"
                    f" table {name}"
                )
            # SQLAlchemy reads a DOUBLE that it finds in MySQL as a decimal, rounded to ten places.
            volume = [sql.Column("volume", sql.Double(asdecimal=False))] if name == "sample" else []
            self._tables[name] = sql.Table(name, sql.MetaData(), *volume, autoload_with=self._engine, resolve_fks=False)
        meter = self._tables["meter"].c
        with self._engine.connect() as connection:
            for row in connection.execute(sql.select(meter.id, meter.name, meter.type, meter.unit)):
                self._meters[row.id] = _Meter(row.name, row.type or "", row.unit or "")

    def _count(self, after: Any) -> int:
        sql = sqlalchemy_library()
        with self._engine.connect() as connection:
            statement = sql.select(sql.func.count()).select_from(self._tables["sample"]).where(*self._conditions(after))
            return int(connection.execute(statement).scalar_one())

    def _rows(self, after: Any) -> Sequence[Any]:
        """Return a page of rows of ``sample``, and read the rows of ``resource`` that they refer to."""
        sql = sqlalchemy_library()
        sample, resource = self._tables["sample"].c, self._tables["resource"].c
        columns = (sample.id, sample.meter_id, sample.resource_id, sample.volume, self._time(sample), sample.message_id)
        statement = sql.select(*columns).where(*self._conditions(after)).order_by(sample.id).limit(self._page_samples)
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
            wanted = {row.resource_id for row in rows} - {None}
            if len(self._resources) > CACHED_RESOURCES:
                self._resources.clear()
            if missing := sorted(wanted - set(self._resources), key=repr):
                names = ("internal_id", "resource_id", "user_id", "project_id", "source_id", "resource_metadata")
                statement = sql.select(*(resource[name] for name in names)).where(resource.internal_id.in_(missing))
                for row in connection.execute(statement):
                    self._resources[row.internal_id] = self._resource(row)
        return list(rows)

    def _conditions(self, after: Any) -> list[Any]:
        sample = self._tables["sample"].c
        conditions = [sample.timestamp < self._stored_time(self._selection.until)]
        if after is not None:
            conditions.append(sample.id > after)
        if self._selection.since is not None:
            conditions.append(sample.timestamp >= self._stored_time(self._selection.since))
        if self._selection.meters:
            conditions.append(
                sample.meter_id.in_([id for id, meter in self._meters.items() if self._selection.has_meter(meter.name)])
            )
        return conditions

    def _time(self, sample: Any) -> Any:
        """Return what to select as the time: what Python cannot represent, which would end the import, is a text or nothing."""
        sql = sqlalchemy_library()
        if isinstance(sample.timestamp.type, sql.Numeric):
            return sample.timestamp
        if self._engine.dialect.name == "sqlite":
            return sql.type_coerce(sample.timestamp, sql.String).label("timestamp")
        return sql.case((sample.timestamp >= self._stored_time(FIRST_TIME), sample.timestamp)).label("timestamp")

    def _stored_time(self, at: datetime) -> datetime | Decimal:
        """Return a time as the column of times has it."""
        if isinstance(self._tables["sample"].c.timestamp.type, sqlalchemy_library().Numeric):
            return Decimal((at - EPOCH) // timedelta(microseconds=1)).scaleb(-6)
        return at.astimezone(UTC).replace(tzinfo=None)

    def _resource(self, row: Any) -> _Resource:
        decoded: Any = {}
        problem = ""
        try:
            decoded = (json.loads(row.resource_metadata) if row.resource_metadata else None) or {}
        except (ValueError, RecursionError) as error:  # MySQL cut texts of more than 64 KiB
            problem = f"the metadata of its resource are not JSON: {error}"
        if not isinstance(decoded, dict):
            decoded, problem = {}, "the metadata of its resource are not a JSON object"
        if RESERVED_METADATA in decoded:
            problem = f"its metadata have {RESERVED_METADATA}, which is reserved for Meter's own agents"
        metadata = {**decoded, IMPORTED_FROM: SOURCE}
        if self._interval_seconds:
            metadata = with_reserved(metadata, interval=self._interval_seconds)
        return _Resource(row.resource_id, row.user_id, row.project_id, row.source_id, metadata, problem)

    # --- in the reactor's thread -----------------------------------------------------------------------------------

    def _imported(self, row: Any) -> SourceSample | NotImported:
        record = f"sample {row.id}"
        meter, resource = self._meters.get(row.meter_id), self._resources.get(row.resource_id)
        details = {"volume": row.volume, "timestamp": str(row.timestamp), "message_id": row.message_id}
        if meter is None or resource is None:
            table, key = ("meter", row.meter_id) if meter is None else ("resource", row.resource_id)
            name = meter.name if meter is not None else ""
            return NotImported(record, name, f"there is no row {key} in the table {table}", details)
        details |= {"resource_id": resource.resource_id, "project_id": resource.project_id}
        if resource.problem:
            return NotImported(record, meter.name, resource.problem, details)
        try:
            at = _time(row.timestamp)
            sample = Sample(
                name=meter.name,
                type=meter.type,  # type: ignore[arg-type]  # which a sample checks
                unit=meter.unit,
                volume=row.volume,
                resource_id=resource.resource_id,
                user_id=resource.user_id,
                project_id=resource.project_id,
                source=resource.source,
                timestamp=at,
                resource_metadata=resource.metadata,
                message_id=row.message_id
                or derived_id(SOURCE, resource.resource_id, meter.name, at.isoformat(), str(row.id)),
            )
        except (BadSample, ValueError, TypeError, OverflowError, ArithmeticError) as error:
            return NotImported(record, meter.name, str(error), details)
        return SourceSample(record, sample)


def _time(stored: Any) -> datetime:
    """Return a time of one of the databases."""
    if isinstance(stored, str):
        stored = datetime.fromisoformat(stored)
    if isinstance(stored, datetime):
        return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored
    if isinstance(stored, Decimal):
        return EPOCH + timedelta(microseconds=int(stored.scaleb(6)))
    raise ValueError(f"the timestamp is {stored!r}")


def _read_all_texts(connection: Any, _: Any) -> None:
    """Let a connection to SQLite return texts that are not UTF-8, which no sample can have: their rows are refused, not the page."""
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")


def _first_line(error: BaseException) -> str:
    """Return what the database said, without the statement."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
