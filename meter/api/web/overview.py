"""The page ``/``: what is metered now, the newest samples, whether the pipeline works, and what needs attention."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import NamedTuple

from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web import attention
from meter.api.web.billing.unpriced_rows import unpriced_groups
from meter.api.web.charts.arrivals import ARRIVALS_TIME
from meter.api.web.charts.arrivals import BAR_SECONDS
from meter.api.web.charts.arrivals import arrival_bars
from meter.api.web.daemon_rows import DaemonSummary
from meter.api.web.daemon_rows import daemon_summary
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.api.web.page_part import PagePart
from meter.api.web.page_part import page_part
from meter.api.web.page_part import part_of_available_store
from meter.api.web.pipeline import MAX_LAG_SAMPLES
from meter.api.web.pipeline import NOT_FINAL_TIME
from meter.api.web.pipeline import bus_part
from meter.api.web.pipeline import completeness_of_day
from meter.completeness.activity import ResourceCount
from meter.completeness.activity import ResourceCounts
from meter.completeness.lives.kinds import KINDS
from meter.completeness_query import ReportingAgent
from meter.counts import counted
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.query import StoredMeter

MAX_METERS = 200
"""Meters that the page lists; the usage page finds all."""

NEWEST = 15
"""Samples in the list of the newest before others arrive."""

MAX_LIVE_ROWS = 50

RESOURCE_TIME = timedelta(hours=1)
"""A resource exists if its newest sample within this time says so."""

MAX_SERIES = 50_000
"""Series that are read to count resources."""


class PipelineHealth(NamedTuple):
    """One line about the pipeline: a clause for each thing, and whether all is well."""

    good: bool
    clauses: Sequence[str]


class KindCount(NamedTuple):
    """The existing resources of a kind, and of them those in each state."""

    kind: str
    resources: int
    states: Sequence[ResourceCount]


async def overview(context: RequestContext) -> RawResponse:
    """Handle ``/`` for browsers."""
    now = context.utc_now
    meters = await part_of_available_store(context.store.meters(SampleFilter(), MAX_METERS + 1, True))
    resources = await part_of_available_store(
        context.store.resource_counts(tuple(KINDS.values()), now - RESOURCE_TIME, MAX_SERIES)
    )
    arrivals = await part_of_available_store(context.store.arrivals(now - ARRIVALS_TIME, BAR_SECONDS, MAX_LAG_SAMPLES))
    newest = await part_of_available_store(context.store.samples(SampleFilter(), NEWEST))
    hour = now - timedelta(hours=1)
    day = (now - timedelta(days=1)).replace(minute=0, second=0, microsecond=0)
    found, health = await _attention(context, now)
    return await page_response(
        context,
        "overview.html",
        "Overview",
        now=now,
        meters=meters,
        meters_shown=(meters.value or ())[:MAX_METERS],
        meters_more=len(meters.value or ()) > MAX_METERS,
        meter_names=_names(meters.value or ()),
        resources=resources,
        kinds=kind_counts(resources.value) if resources.value else (),
        samples_of_hour=await part_of_available_store(_samples_since(context, hour)),
        samples_of_day=await part_of_available_store(_samples_since(context, day)),
        day=day,
        arrivals=arrivals,
        bars=arrival_bars(arrivals.value, now) if arrivals.value else None,
        newest=newest,
        max_live_rows=MAX_LIVE_ROWS,
        attention=found,
        health=health,
    )


async def _samples_since(context: RequestContext, start: datetime) -> int:
    """Return how many samples have a timestamp at ``start`` or later: the sum of what statistics count by unit."""
    query = StatisticsQuery(filter=SampleFilter(start=start), aggregates=(Aggregate("count"),))
    return round(sum(row.values["count"] for row in await context.store.statistics(query)))


async def _attention(context: RequestContext, now: datetime) -> tuple[Sequence[attention.Attention], PipelineHealth]:
    """Return what needs attention, and the pipeline in one line."""
    store, bus = context.store, context.bus
    found: list[attention.Attention] = []
    completeness = await part_of_available_store(completeness_of_day(context))
    found += attention.of_completeness(completeness.value)
    clauses: list[str] = []
    if context.requester.is_admin:
        agents = await part_of_available_store(store.agent_states(now))
        found += attention.of_agents(agents.value or ())
        daemons = daemon_summary(await store.heartbeats(), now)
        found += attention.of_daemons(daemons)
        state = await bus_part(bus)
        found += attention.of_bus(state, bus.max_dead_letters if bus is not None else 0)
        hours = await part_of_available_store(store.hours_not_final(now - NOT_FINAL_TIME, now, now))
        found += attention.of_hours(hours.value or ())
        month = await page_part(attention.open_month(context, now))  # the price directory can be away
        found += attention.of_prices(None if context.prices is None else context.prices.readiness())
        found += attention.of_month(month.value)
        found += attention.of_unpriced((await unpriced_groups(context)).value or ())
        clauses += _admin_clauses(agents, daemons, hours)
        if state.value is None:
            clauses.append("the message bus is not known here" if bus is None else "the message bus does not answer")
        else:
            queued = [each.messages for each in state.value.queues if each.messages is not None]
            clauses += [f"{counted(sum(queued), 'message')} in queues"] if queued else []
            clauses.append(counted(state.value.dead_letters, "dead letter"))
        if bus is not None and state.value is None:
            found.append(attention.Attention("bad", state.problem.rstrip("."), "/pipeline#queues", "Pipeline"))
    budgets = await part_of_available_store(attention.budget_states(context))
    found += attention.of_budgets(budgets.value or (), now)
    row = completeness.value
    clauses.append("nothing was expected" if row is None else f"{row.percent} % complete in the last 24 hours")
    order = sorted(found, key=lambda each: each.level != "bad")
    pipeline = [each for each in found if each.page in ("Pipeline", "Dead letters", "Completeness")]
    return order, PipelineHealth(not pipeline, clauses)


def _admin_clauses(
    agents: PagePart[Sequence[ReportingAgent]], daemons: DaemonSummary, hours: PagePart[Sequence[datetime]]
) -> Iterator[str]:
    if agents.value is not None:
        running = sum(each.state == "running" for each in agents.value)
        yield f"{running} of {len(agents.value)} agents run"
    yield f"{daemons.states.get('running', 0)} of {len(daemons.rows)} daemons run"
    if hours.value:
        yield f"{counted(len(hours.value), 'hour')} overdue to be final"


def kind_counts(counts: ResourceCounts) -> list[KindCount]:
    """Return the resources by kind, those of most resources first."""
    states: dict[str, list[ResourceCount]] = {}
    for each in counts.counts:
        states.setdefault(each.kind, []).append(each)
    kinds = [KindCount(kind, sum(each.resources for each in of_kind), of_kind) for kind, of_kind in states.items()]
    return sorted(kinds, key=lambda each: (-each.resources, each.kind))


def _names(meters: Sequence[StoredMeter]) -> int:
    """Return the number of meters by name: one can have several types and units."""
    return len({meter.name for meter in meters})


PAGES = (page("/", overview, "What is metered now."),)
