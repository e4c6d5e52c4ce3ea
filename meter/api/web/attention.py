"""What needs attention: a sentence for each thing, with the page that shows it. To a tenant, what concerns their project."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import Literal
from typing import NamedTuple

from meter.api.bus_services import BusState
from meter.api.request.context import RequestContext
from meter.api.web import formats
from meter.api.web.daemon_rows import DaemonSummary
from meter.api.web.page_part import PagePart
from meter.completeness_query import Closable
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import ReportingAgent
from meter.interfaces import Readiness
from meter.rating.budgets.budget_state import BudgetState
from meter.rating.costs.unpriced_usage import UnpricedGroup
from meter.rating.period import BillingPeriod

MAX_NAMED = 5
MAX_BUDGETS = 200
"""Budgets that are looked at, the first ones."""

CLOSING_TIME = timedelta(days=3)
"""A month is not called overdue before: late samples, and those who close it, have some days."""


class Attention(NamedTuple):
    """One thing: how bad it is, what it is, and the path and the name of the page that shows it."""

    level: Literal["bad", "warn"]
    text: str
    url: str
    page: str


class OpenMonth(NamedTuple):
    """The last month, which has no closed statement, and whether it may be closed."""

    period: str
    closable: Closable


def of_completeness(row: CompletenessRow | None) -> Iterator[Attention]:
    """Yield which samples of the last 24 hours are missing, by cause; those that may still arrive are not."""
    if row is None:
        return
    causes = {cause: samples for cause, samples in row.causes.items() if cause != "not finalized" and samples}
    if causes:
        order = sorted(causes.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{cause} {formats.number(samples)}" for cause, samples in order[:MAX_NAMED])
        text = f"{formats.number(sum(causes.values()))} samples of the last 24 hours are missing: {shown}"
        yield Attention("warn", text, "/completeness", "Completeness")


def of_agents(agents: Sequence[ReportingAgent]) -> Iterator[Attention]:
    """Yield which agents are silent."""
    silent = [each.agent for each in agents if each.state == "silent"]
    if silent:
        are = "agent is" if len(silent) == 1 else "agents are"
        yield Attention(
            "bad", f"{formats.number(len(silent))} {are} silent: {_named(silent)}", "/pipeline#agents", "Pipeline"
        )


def of_daemons(daemons: DaemonSummary) -> Iterator[Attention]:
    """Yield which clocks are wrong, whether versions differ, and which other problems daemons have."""
    if skewed := [f"{row.stored.heartbeat.name} {formats.lag(row.stored.ahead_seconds)}" for row in daemons.skewed]:
        text = f"clocks differ from that of the database: {_named(skewed)}"
        yield Attention("warn", text, "/pipeline#daemons", "Pipeline")
    if len(daemons.versions) > 1:
        versions = ", ".join(f"{version} ({count})" for version, count in daemons.versions.items())
        yield Attention("warn", f"versions of running daemons differ: {versions}", "/pipeline#daemons", "Pipeline")
    others = [row.stored.heartbeat.name for row in daemons.rows if row.problems and not row.skewed]
    if others:
        have = "daemon is silent or has problems" if len(others) == 1 else "daemons are silent or have problems"
        text = f"{formats.number(len(others))} {have}: {_named(others)}"
        yield Attention("warn", text, "/pipeline#daemons", "Pipeline")


def of_bus(bus: PagePart[BusState], max_dead_letters: int) -> Iterator[Attention]:
    """Yield what the broker says: dead letters, queues without consumer, publishing that is blocked."""
    if bus.value is None:
        return
    state = bus.value
    if state.blocked:
        yield Attention("bad", f"the broker blocks publishing: {state.blocked}", "/pipeline#queues", "Pipeline")
    for queue in state.queues:
        if queue.messages and not queue.consumers and not queue.name.endswith(".waiting"):
            text = f"no collector consumes {queue.name}, which has {formats.number(queue.messages)} messages"
            yield Attention("bad", text, "/pipeline#queues", "Pipeline")
    if state.dead_letters:
        full = bool(max_dead_letters) and state.dead_letters >= max_dead_letters
        are = "dead letter" if state.dead_letters == 1 else "dead letters"
        text = f"{formats.number(state.dead_letters)} {are}{': their queue is full' if full else ''}"
        yield Attention("bad" if full else "warn", text, "/pipeline/dead-letters", "Dead letters")


def of_hours(hours: Sequence[datetime]) -> Iterator[Attention]:
    """Yield how many hours should be final."""
    if hours:
        are = "hour is" if len(hours) == 1 else "hours are"
        text = f"{formats.number(len(hours))} {are} overdue to be final, the first one {formats.utc(hours[0])}"
        yield Attention("warn", text, "/pipeline#final", "Pipeline")


def of_budgets(states: Sequence[BudgetState], now: datetime) -> Iterator[Attention]:
    """Yield which budgets of the present period have reached a threshold, and which count unpriced usage."""
    present = [state for state in states if state.start <= now < state.end]
    for state in [each for each in present if any(threshold.reached_at for threshold in each.thresholds)][:MAX_NAMED]:
        reached = [each for each in state.thresholds if each.reached_at is not None]
        highest = max(reached, key=lambda each: (each.percent, each.basis == "used"))
        over = state.used > state.limit
        text = f"budget {state.name}: {highest.percent:f} % of the limit is {'used' if highest.basis == 'used' else 'forecast'}"
        yield Attention("bad" if over else "warn", text, "/statements", "Statements")
    unpriced = [state.name for state in present if any(gap.code == "unpriced" for gap in state.gaps)]
    if unpriced:
        yield Attention("warn", f"usage without a price is in the budgets: {_named(unpriced)}", "/prices", "Prices")


def of_unpriced(groups: Sequence[UnpricedGroup]) -> Iterator[Attention]:
    """Yield which SKUs were used without a price, of all accounts, in the newest period with such usage."""
    newest = [each for each in groups if each.period.first == groups[0].period.first]
    if newest:
        skus = list(dict.fromkeys(each.sku for each in newest))
        text = f"usage without a price in {newest[0].period.name}: {_named(skus)}"
        yield Attention("warn", text, "/prices#unpriced", "Prices")


def of_month(month: OpenMonth | None) -> Iterator[Attention]:
    """Yield why the last month cannot be closed."""
    if month is None:
        return
    # A month in which nothing was measured is none that somebody waits for.
    if any(reason.code != "nothing expected" for reason in month.closable.reasons):
        reasons = "; ".join(reason.text for reason in month.closable.reasons[:3])
        more = len(month.closable.reasons) - 3
        text = f"{month.period} cannot be closed: {reasons}{f'; and {more} more' if more > 0 else ''}"
        yield Attention("warn", text, "/completeness", "Completeness")


def of_prices(prices: Readiness | None) -> Iterator[Attention]:
    """Yield why the price directory, whose state is ``prices``, cannot be used as it is."""
    if prices is not None and not prices.ready:
        yield Attention("bad", f"the price directory cannot be used: {prices.reason}", "/prices", "Prices")


async def budget_states(context: RequestContext) -> Sequence[BudgetState]:
    """Return the budgets that the requester sees, as they were evaluated last; none if rating is not configured."""
    if context.prices is None:
        return ()
    return await context.store.budgets.states(None, None, None, MAX_BUDGETS)


async def open_month(context: RequestContext, now: datetime) -> OpenMonth | None:
    """Return the last month if it has no closed statement, in the time zone of the first price book that may have one; else ``None``."""
    if context.prices is None or not context.requester.is_admin:
        return None
    directory = await context.prices.current()
    for book in directory.books.values():
        present = BillingPeriod.containing(now, book.timezone)
        if now < present.start + CLOSING_TIME:
            continue
        last = present.previous
        if not await context.store.statements.summaries(None, None, last.name, 1):
            query = CompletenessQuery(start=last.start, end=present.start)
            return OpenMonth(last.name, await context.store.closable(query, now))
    return None


def _named(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
