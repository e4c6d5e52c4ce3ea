"""Compares the log of Nova's usage audits with the notifications of these audits that have arrived.

The central agent polls Nova's log (:mod:`meter.pollsters.openstack.usage_audit`): its samples say how many instances the audit of a period
reported. Each of them is a notification ``compute.instance.exists``, whose sample has the end of the period as its timestamp.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import Protocol

from meter.completeness_query import AuditedPeriod
from meter.interfaces import RequestError
from meter.query import Aggregate
from meter.query import Comparison
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredSample

SENT = "nova.usage_audit.instances"
OTHERS = {
    "hosts": "nova.usage_audit.hosts",
    "hosts_not_run": "nova.usage_audit.hosts.not_run",
    "errors": "nova.usage_audit.errors",
}
MAX_PERIODS = 100
PAGE_SAMPLES = 10_000
MAX_PAGES = 50
"""Samples of Nova's log that are read at a time, and how often; a query for which that is not enough must be narrower."""

PUBLISHED_LATER = timedelta(days=2)
"""How long after the end of a period its log is looked for."""

LATEST = datetime.max.replace(tzinfo=UTC) - PUBLISHED_LATER


class AuditSamples(Protocol):
    """The methods of a store that are used here."""

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return at most ``limit`` matching samples, newest first."""

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """Return statistics."""


async def audited_periods(store: AuditSamples, start: datetime, end: datetime) -> list[AuditedPeriod]:
    """Return the audit periods that ended from ``start`` until before ``end``, the newest first."""
    numbers: dict[tuple[datetime, datetime], dict[str, int]] = {}
    for name, meter in {"sent": SENT, **OTHERS}.items():
        for period, volume in (await _newest_polls(store, meter, start, end)).items():
            numbers.setdefault(period, {})[name] = volume
    found = []
    for (began, ended), of_period in sorted(numbers.items(), reverse=True)[:MAX_PERIODS]:
        if "sent" in of_period:
            found.append(
                AuditedPeriod(
                    start=began,
                    end=ended,
                    hosts=of_period.get("hosts", 0),
                    hosts_not_run=of_period.get("hosts_not_run", 0),
                    errors=of_period.get("errors", 0),
                    sent=of_period["sent"],
                    arrived=await _arrived(store, began, ended),
                )
            )
    return found


async def _newest_polls(
    store: AuditSamples, meter: str, start: datetime, end: datetime
) -> dict[tuple[datetime, datetime], int]:
    """Return the volume of the newest poll of each period, at least of the newest :data:`MAX_PERIODS`.

    Hosts that were late have run until the newest poll.
    """
    filter = SampleFilter(equals={"meter": meter}, start=start, end=min(end, LATEST) + PUBLISHED_LATER)
    newest: dict[tuple[datetime, datetime], int] = {}
    after: Marker | None = None
    for _ in range(MAX_PAGES):
        samples = await store.samples(filter, PAGE_SAMPLES, after=after)
        for sample in samples:
            period = _period(sample.metadata)
            if period is not None and start <= period[1] < end:
                newest.setdefault(period, int(sample.volume))
        # A period is polled when it has ended: what was not read yet is about periods that ended before.
        if len(samples) < PAGE_SAMPLES or sum(ended >= samples[-1].timestamp for _, ended in newest) >= MAX_PERIODS:
            return newest
        after = Marker(samples[-1].timestamp, samples[-1].message_id)
    raise RequestError("there are too many polls of Nova's log: narrow the period")


async def _arrived(store: AuditSamples, start: datetime, end: datetime) -> int:
    filter = SampleFilter(
        equals={"meter": "instance"},
        start=start,
        end=end,
        after_start=True,
        through_end=True,
        expression=Comparison("metadata.event_type", "=", "compute.instance.exists"),
    )
    query = StatisticsQuery(filter=filter, aggregates=(Aggregate("cardinality", "resource_id"),))
    return int(sum(sum(row.values.values()) for row in await store.statistics(query)))


def _period(metadata: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Return the period of Nova's log, whose times are in UTC like ``2026-11-18 12:00:00``."""
    try:
        began, ended = (
            datetime.fromisoformat(metadata[name]).replace(tzinfo=UTC) for name in ("period_beginning", "period_ending")
        )
    except (KeyError, TypeError, ValueError):
        return None
    return began, ended
