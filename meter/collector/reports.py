"""Consumes reports of agents and daemons: verifies each delivery, stores it, and acknowledges it after the commit.

Reports that arrive together are stored in one transaction. A report that is not valid, or not signed by a key that may report for
its agent, is dead-lettered and changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import call_at_once
from meter.ceilometer_signature import BadSignature
from meter.collector.large_bodies import Runner
from meter.collector.large_bodies import is_large
from meter.collector.rejection import Rejection
from meter.completeness_store import ICompletenessStore
from meter.completeness_store import ReceivedCycle
from meter.completeness_store import ReceivedHeartbeat
from meter.completeness_store import ReportLimits
from meter.completeness_store import ReportResult
from meter.completeness_store import received_cycle
from meter.completeness_store import received_heartbeat
from meter.cycle_report import cycle_report
from meter.daemon.locks import Lock
from meter.daemon.report_metrics import ReportMetrics
from meter.daemon.services import wall_seconds
from meter.heartbeat import heartbeat
from meter.identity_names import IIdentityNames
from meter.identity_report import IdentityReport
from meter.identity_report import identity_report
from meter.interfaces import Delivery
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.report import MAX_REPORT_BYTES
from meter.report import VerifiedReport
from meter.report import read_report
from meter.signing_keys import Keyring

REPORTS_QUEUE = "meter.reports"

REPORTS_AT_ONCE = 100
"""Maximum number of reports that are stored in one transaction."""

BYTES_AT_ONCE = 4 * 1024 * 1024
"""Maximum number of bytes of the reports that are stored in one transaction, unless it is one report."""

SIGNED_WITHIN = timedelta(hours=1)
"""A report is signed at most this long after the time that it is about: its key has to be valid at either time."""

REPORTERS_OF_IDENTITIES = ("meter-central", "meter-collector", "meter")
"""Daemons that report names of projects, domains and users; a report does not name its agent."""

R = TypeVar("R", ReceivedCycle, ReceivedHeartbeat)


class _Opened(NamedTuple):
    """A verified report: its kind, and what it contains."""

    kind: str
    report: ReceivedCycle | ReceivedHeartbeat | IdentityReport


class ReportRejected(Exception):
    """A report of this kind (of reports) is rejected, for the reason in ``rejection``."""

    def __init__(self, report_kind: str, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.report_kind = report_kind
        self.rejection = Rejection(kind=kind, reason=reason)


@dataclass(slots=True)
class _ReportBatch(Generic[R]):
    """Reports of one kind that are stored in one transaction, and who waits for what becomes of each."""

    reports: list[R] = field(default_factory=list)
    waiters: list[Deferred[ReportResult]] = field(default_factory=list)
    bytes: int = 0
    timer: IDelayedCall | None = None


class _ReportBatcher(Generic[R]):
    """Collects reports of one kind for ``batch_seconds``, and gives them to ``store``, one batch after another.

    Batches that are stored at the same time would be so in any order, and reports would have to wait for others in the store.
    """

    def __init__(
        self,
        store: Callable[[Sequence[R]], Awaitable[Sequence[ReportResult]]],
        clock: IReactorTime,
        batch_seconds: float,
    ) -> None:
        self._store: Callable[[Sequence[R]], Awaitable[Sequence[ReportResult]]] = store
        self._clock = clock
        self._batch_seconds = batch_seconds
        self._storing = Lock()
        self._batch: _ReportBatch[R] = _ReportBatch()

    def record(self, report: R, size: int) -> Deferred[ReportResult]:
        """Fire with what became of ``report``, which has ``size`` bytes, after its commit."""
        if self._batch.reports and self._batch.bytes + size > BYTES_AT_ONCE:
            self._flush()
        waiter: Deferred[ReportResult] = Deferred()
        batch = self._batch
        batch.reports.append(report)
        batch.waiters.append(waiter)
        batch.bytes += size
        if len(batch.reports) >= REPORTS_AT_ONCE or batch.bytes >= BYTES_AT_ONCE:
            self._flush()
        elif batch.timer is None:
            batch.timer = self._clock.callLater(self._batch_seconds, self._flush)
        return waiter

    def _flush(self) -> None:
        batch, self._batch = self._batch, _ReportBatch()
        if batch.timer is not None and batch.timer.active():
            batch.timer.cancel()
        Deferred.fromCoroutine(self._write(batch))

    async def _write(self, batch: _ReportBatch[R]) -> None:
        try:
            async with self._storing:
                results = await self._store(batch.reports)
        except Exception as error:
            for waiter in batch.waiters:
                waiter.errback(error)
            return
        for waiter, result in zip(batch.waiters, results, strict=True):
            waiter.callback(result)


class ReportConsumer:
    """Stores reports: :meth:`receive` is a :data:`meter.interfaces.Receiver`.

    A report about a time more than ``max_ahead_seconds`` in the future, or older than ``retention_days`` (0: without limit), is
    rejected. ``identities`` records names. ``off_reactor`` runs a function in a thread, for large reports.
    """

    _log = Logger()

    def __init__(
        self,
        store: ICompletenessStore,
        identities: IIdentityNames,
        keys: Keyring,
        dead_letters: DeadLetterPublisher,
        clock: IReactorTime,
        *,
        metrics: ReportMetrics,
        max_ahead_seconds: float = 3600.0,
        retention_days: float = 0.0,
        batch_seconds: float = 0.05,
        off_reactor: Runner = call_at_once,
    ) -> None:
        self._identities = identities
        self._keys = keys
        self._dead_letters = dead_letters
        self._clock = clock
        self._metrics = metrics
        self._max_ahead_seconds = max_ahead_seconds
        self._retention = timedelta(days=retention_days)
        self._off_reactor = off_reactor
        self._large = Lock()
        self._cycles: _ReportBatcher[ReceivedCycle] = _ReportBatcher(store.record_cycle_reports, clock, batch_seconds)
        self._heartbeats: _ReportBatcher[ReceivedHeartbeat] = _ReportBatcher(
            store.record_heartbeats, clock, batch_seconds
        )

    async def receive(self, delivery: Delivery) -> None:
        """Return once the report is committed, known as repeated, or dead-lettered.

        Raises :class:`meter.interfaces.Unavailable` while the store or the bus is unavailable: the delivery is requeued.
        """
        began = self._clock.seconds()
        try:
            kind, result = await self._record(delivery.body)
        except ReportRejected as error:
            await error.rejection.dead_letter(self._dead_letters, delivery)
            self._metrics.reported(error.report_kind, error.rejection.kind)
            return
        self._metrics.reported(kind, result.outcome)
        self._metrics.took(kind, self._clock.seconds() - began)

    async def _record(self, body: bytes) -> tuple[str, ReportResult]:
        kind, report = await self._open(body)
        if isinstance(report, IdentityReport):
            try:
                await self._identities.record_identities(report)
            except BadMessage as error:
                raise ReportRejected(kind, "invalid", str(error)) from error
            return kind, ReportResult("applied")
        if isinstance(report, ReceivedHeartbeat):
            result = await self._heartbeats.record(report, len(body))
        else:
            result = await self._cycles.record(report, len(body))
        if result.outcome == "conflict":
            raise ReportRejected(kind, "conflict", result.reason)
        if result.outcome == "refused":
            raise ReportRejected(kind, "unstorable", result.reason)
        return kind, result

    async def _open(self, body: bytes) -> _Opened:
        """Open a body, large ones in a thread and one at a time: decoded, each takes many times the memory of its body."""
        now = datetime.fromtimestamp(wall_seconds(self._clock), UTC)
        oldest = now - self._retention if self._retention else datetime.min.replace(tzinfo=UTC)
        limits = ReportLimits(now, self._max_ahead_seconds, oldest)
        if len(body) > MAX_REPORT_BYTES:
            raise ReportRejected(
                "unknown", "too-complex", f"a report has at most {MAX_REPORT_BYTES} bytes, not {len(body)}"
            )
        if not is_large(body):
            return self._opened(body, limits)
        async with self._large:
            found: _Opened = await self._off_reactor(lambda: self._opened(body, limits))
            return found

    def _opened(self, body: bytes, limits: ReportLimits) -> _Opened:
        try:
            verified = read_report(body, self._keys)
        except BadSignature as error:
            raise ReportRejected("unknown", "unverified", str(error)) from error
        except BadMessage as error:
            raise ReportRejected("unknown", "undecodable", str(error)) from error
        try:
            return self._checked(verified, limits)
        except BadSignature as error:
            raise ReportRejected(verified.kind, "unverified", str(error)) from error
        except (BadMessage, UnicodeError, OverflowError) as error:
            raise ReportRejected(verified.kind, "invalid", str(error)) from error

    def _checked(self, verified: VerifiedReport, limits: ReportLimits) -> _Opened:
        if verified.kind == "cycle":
            received = received_cycle(cycle_report(verified.content), verified.mac, limits)
            self._check_key(verified, received.report.agent, received.due)
            return _Opened(verified.kind, self._without_foreign_lists(verified, received))
        if verified.kind == "heartbeat":
            beat = received_heartbeat(heartbeat(verified.content), limits)
            self._check_key(verified, beat.heartbeat.name, beat.clock)
            return _Opened(verified.kind, beat)
        report = identity_report(verified.content)
        key = self._keys.get(verified.key_id)
        if key is not None and not any(key.may_report_for_daemon(daemon) for daemon in REPORTERS_OF_IDENTITIES):
            raise BadSignature(f"key {key.id} may not report names of projects, domains and users")
        self._check_key(verified, None, parse_timestamp(report.at, "at"))
        return _Opened(verified.kind, report)

    def _without_foreign_lists(self, verified: VerifiedReport, received: ReceivedCycle) -> ReceivedCycle:
        """Return the report without what it succeeds of agents for which its key may not report: their series go on."""
        key = self._keys.get(verified.key_id)
        foreign = {each for each in received.predecessors if key is None or not key.may_report_for(each)}
        if not foreign:
            return received
        self._log.warn(
            "key {key} may not report for {foreign}, whose list of resources {agent} succeeds: their resources do not end with it",
            key=verified.key_id,
            foreign=", ".join(sorted(foreign)),
            agent=received.report.agent,
        )
        polls = tuple(
            msgspec.structs.replace(poll, succeeds=None)
            if poll.succeeds is not None and poll.succeeds.agent in foreign
            else poll
            for poll in received.report.polls
        )
        return replace(received, report=msgspec.structs.replace(received.report, polls=polls))

    def _check_key(self, verified: VerifiedReport, agent: str | None, time: datetime) -> None:
        key = self._keys.get(verified.key_id)
        if key is None:
            raise BadSignature(f"the key {verified.key_id} is not accepted any more")
        if agent is not None and not key.may_report_for(agent):
            raise BadSignature(f"key {key.id} may not report for the agent {agent}")
        if not key.covers(time) and not key.covers(_later(time)):
            raise BadSignature(f"key {key.id} does not cover {time.isoformat()}")


def _later(time: datetime) -> datetime:
    try:
        return time + SIGNED_WITHIN
    except OverflowError:
        return time
