"""The page ``/pipeline``: agents, queues, spools, dead letters, hours that are not final, and the lag from measurement to row."""

from __future__ import annotations

from datetime import timedelta

from meter.api.bus_services import BusServices
from meter.api.bus_services import BusState
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import offset_of
from meter.api.responses import RawResponse
from meter.api.web.daemon_rows import daemon_summary
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.api.web.page_part import PagePart
from meter.api.web.page_part import part_of_available_store
from meter.bus.queue_names import MAX_WAITING_MESSAGES
from meter.completeness.activity import Arrivals
from meter.completeness.ledger.causes import EXPLANATIONS
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.interfaces import Unavailable

LAG_TIME = timedelta(hours=1)
MAX_LAG_SAMPLES = 20_000
"""The lag is that of the samples that were stored within this time, and of at most so many, the newest."""

DAY = timedelta(days=1)
NOT_FINAL_TIME = timedelta(days=7)
"""How far back hours that are not final are looked for."""

PAGE_ROWS = 100

AGENTS_FROM = Parameter("agents_from", "string", "The number of agents before those of the page.")
DAEMONS_FROM = Parameter("daemons_from", "string", "The number of daemons before those of the page.")


async def lags(context: RequestContext) -> Arrivals:
    """Return how long after their measurement the visible samples of the last hour were stored."""
    return await context.store.arrivals(context.utc_now - LAG_TIME, 60, MAX_LAG_SAMPLES)


async def completeness_of_day(context: RequestContext) -> CompletenessRow | None:
    """Return the completeness of the last 24 hours, as ``/v2/completeness`` does; ``None`` if nothing was expected.

    It begins with a whole hour: of such hours the store has sums.
    """
    now = context.utc_now
    start = (now - DAY).replace(minute=0, second=0, microsecond=0)
    rows = await context.store.completeness(CompletenessQuery(start=start, end=now), now, 1)
    return rows[0] if rows and rows[0].expected else None


async def bus_part(bus: BusServices | None) -> PagePart[BusState]:
    """Return the state of the bus, or why it is not known."""
    if bus is None:
        return PagePart(None, "This server knows no message bus: [bus] url is not configured here.")
    try:
        return PagePart(await bus.state())
    except Unavailable as error:
        return PagePart(None, f"The message bus is unavailable: {error}")


async def pipeline(context: RequestContext) -> RawResponse:
    """Handle ``/pipeline``."""
    arguments = context.arguments
    agents_from, daemons_from = offset_of(arguments["agents_from"]), offset_of(arguments["daemons_from"])
    lag = await part_of_available_store(lags(context))
    completeness = await part_of_available_store(completeness_of_day(context))
    if not context.requester.is_admin:
        return await page_response(
            context, "pipeline_tenant.html", "Pipeline", lag=lag, completeness=completeness, explanations=EXPLANATIONS
        )
    now = context.utc_now
    states = await part_of_available_store(context.store.agent_states(now))
    agents = sorted(states.value or (), key=lambda each: (each.state == "running", each.last_due))
    daemons = daemon_summary(await context.store.heartbeats(), now)
    return await page_response(
        context,
        "pipeline.html",
        "Pipeline",
        now=now,
        lag=lag,
        completeness=completeness,
        explanations=EXPLANATIONS,
        agents=agents[agents_from : agents_from + PAGE_ROWS],
        agents_problem=states.problem,
        agent_total=len(agents),
        agents_running=sum(each.state == "running" for each in agents),
        agents_silent=sum(each.state == "silent" for each in agents),
        agents_from=agents_from,
        daemons=daemons,
        daemon_rows=daemons.rows[daemons_from : daemons_from + PAGE_ROWS],
        daemons_from=daemons_from,
        page_rows=PAGE_ROWS,
        max_waiting=MAX_WAITING_MESSAGES,
        not_final=await part_of_available_store(context.store.hours_not_final(now - NOT_FINAL_TIME, now, now)),
        bus=await bus_part(context.bus),
        max_dead_letters=context.bus.max_dead_letters if context.bus is not None else 0,
    )


PAGES = (page("/pipeline", pipeline, "How samples get from agents to the store.", AGENTS_FROM, DAEMONS_FROM),)
