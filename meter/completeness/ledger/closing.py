"""Whether a period may be closed, and the reasons against it: it is not over or not final, or samples or reports are missing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import datetime

from meter.completeness.ledger.causes import CAUSES
from meter.completeness.ledger.causes import EXPLANATIONS
from meter.completeness.ledger.ledger_source import HOUR_SECONDS
from meter.completeness.ledger.ledger_source import Finality
from meter.completeness.ledger.ledger_source import at
from meter.completeness_query import Closable
from meter.completeness_query import ClosingReason
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import ReportingAgent
from meter.sample import utc_text


def closable(
    query: CompletenessQuery,
    now: datetime,
    rows: Sequence[CompletenessRow],
    agents: Sequence[ReportingAgent],
    finality: Finality,
) -> Closable:
    """Return whether the period of ``query`` may be closed; ``rows`` are those of the period by agent."""
    measuring = {row.group for row in rows if row.expected}
    # An agent that was silent before the period, and whose resources others measure since, does not matter.
    # Agents that measured nothing of what is selected do not matter either.
    selects_series = (query.project_id, query.resource_id, query.meter) != (None, None, None)
    concerned = [
        each
        for each in agents
        if query.agent in (None, each.agent)
        and (each.agent in measuring or (not selects_series and each.last_due >= query.start))
    ]
    reasons = [
        *_times(query, now, finality),
        *_missing(rows),
        *_agents(query, concerned),
    ]
    if not measuring:
        text = f"no agent has reported {_measured(query)}: whether something is missing is unknown"
        reasons.append(ClosingReason(code="nothing expected", text=text))
    return Closable(start=query.start, end=query.end, reasons=reasons)


def _measured(query: CompletenessQuery) -> str:
    """Return what no agent has reported, in the words of the filters: a mistyped one selects nothing."""
    selected = (
        ("project", query.project_id),
        ("resource", query.resource_id),
        ("meter", query.meter),
        ("agent", query.agent),
    )
    named = [f"{name} {value}" if value else f"no {name}" for name, value in selected if value is not None]
    return f"that it measured anything of {', '.join(named)} in the period" if named else "what it measured"


def _times(query: CompletenessQuery, now: datetime, finality: Finality) -> Iterator[ClosingReason]:
    if now < query.end:
        yield ClosingReason(code="period not over", text=f"the period ends at {utc_text(query.end)}")
    end = query.end.timestamp()
    if finality.open_hours:
        count = len(finality.open_hours)
        first = utc_text(at(min(finality.open_hours)))
        yield ClosingReason(
            code="hours not finalized",
            text=f"{_hours(count)} not final, although samples are stored; the first begins at {first}",
        )
    elif finality.open_from < end:
        start = query.start.timestamp()
        first_open = max(finality.open_from, start - start % HOUR_SECONDS)
        hours = math.ceil((end - first_open) / HOUR_SECONDS)
        first = utc_text(at(first_open))
        yield ClosingReason(
            code="hours not finalized",
            text=f"at the end of the period {_hours(hours)} not final yet; the first begins at {first}",
        )


def _hours(count: int) -> str:
    return "1 hour is" if count == 1 else f"{count} hours are"


def _missing(rows: Sequence[CompletenessRow]) -> Iterator[ClosingReason]:
    """Yield the missing samples by cause. Voided ones are no reason: an administrator decided that they must not be billed."""
    for cause in (each for each in CAUSES if each != "voided"):
        samples = sum(row.causes.get(cause, 0) for row in rows)
        if samples:
            counted = "1 sample is" if samples == 1 else f"{samples} samples are"
            text = f"{counted} missing ({cause}): {EXPLANATIONS[cause]}"
            yield ClosingReason(code="samples missing", text=text, cause=cause, samples=samples)


def _agents(query: CompletenessQuery, agents: Sequence[ReportingAgent]) -> Iterator[ClosingReason]:
    for each in agents:
        if each.waiting_reports:
            counted = "1 report" if each.waiting_reports == 1 else f"{each.waiting_reports} reports"
            wait = "waits" if each.waiting_reports == 1 else "wait"
            text = f"{counted} of {each.agent} {wait} for one with a lower number"
            yield ClosingReason(code="reports outstanding", text=text, agent=each.agent)
        if each.last_due >= query.end or each.state == "stopped":
            continue
        if each.state == "silent" and each.silent_since is not None and each.silent_since < query.end:
            text = f"{each.agent} has been silent since {utc_text(each.silent_since)}: its spool may still hold samples"
            yield ClosingReason(code="agent silent", text=text, agent=each.agent)
        elif each.interval_seconds and each.last_due.timestamp() + each.interval_seconds < query.end.timestamp():
            text = f"the reports of {each.agent} have arrived until {utc_text(each.last_due)} only"
            yield ClosingReason(code="reports outstanding", text=text, agent=each.agent)
