"""JSON schemas of ``/v2/completeness``, and the conversion of the ledger's answers.

A tenant sees the numbers of their own samples, and the causes, but no agents, hosts and reasons: a reason can name a host, or the
resources of other projects.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import cast

import msgspec

from meter.completeness.identities.identity_history import period_at
from meter.completeness.ledger.causes import Cause
from meter.completeness_query import AuditedPeriod
from meter.completeness_query import Closable
from meter.completeness_query import CompletenessRow
from meter.completeness_query import Gap
from meter.completeness_query import GroupField
from meter.completeness_query import ReportingAgent
from meter.completeness_query import Unmetered
from meter.identity_names import IdentityKey
from meter.identity_names import NamePeriod
from meter.sample import utc_text


class Completeness(msgspec.Struct, kw_only=True):
    """Numbers of samples in a period. ``percent`` is null where nothing was expected, and 100 only if nothing is missing.

    ``project_name`` is what the one project of the row was called at its ``end``, null if that is not known. ``causes`` has the missing
    samples by cause, ``skipped`` those that agents skipped by the reason that they stated.
    """

    start: str
    end: str
    group: dict[str, str | None]
    project_name: str | None
    expected: int
    received: int
    unexpected: int
    late: int
    missing: int
    percent: float | None
    causes: dict[str, int]
    skipped: dict[str, int]


class CompletenessGap(msgspec.Struct, kw_only=True):
    """Samples that are missing for one cause. ``end`` is null while the gap lasts; ``resources`` has the first ids.

    ``exact``: the times are those of polls, else the limits of an hour or day. Only administrators see ``agent``, ``pollster`` and
    ``reason``; ``pollster`` is null too where no pollster of the agent measured.
    """

    start: str
    end: str | None
    cause: Cause
    reason: str | None
    agent: str | None
    pollster: str | None
    resources: list[str]
    resource_count: int
    samples: int
    exact: bool


class Agent(msgspec.Struct, kw_only=True):
    """An agent: running, silent or stopped. ``silent_since`` is when the first cycle was due that it has not reported."""

    agent: str
    daemon: str
    host: str
    state: str
    first_due: str
    last_due: str
    silent_since: str | None
    interval_seconds: float | None
    resources: int
    waiting_reports: int


class UnmeteredResources(msgspec.Struct, kw_only=True):
    """What the last reconciliation of one kind of resource found: listed and not metered, metered and not listed. The lists have the first ids."""

    kind: str
    at: str
    not_metered: int
    not_metered_ids: list[str]
    not_listed: int
    not_listed_ids: list[str]


class AuditPeriod(msgspec.Struct, kw_only=True):
    """An audit period of Nova: notifications that were sent, as Nova says, that have arrived, and that are missing."""

    start: str
    end: str
    hosts: int
    hosts_not_run: int
    errors: int
    sent: int
    arrived: int
    missing: int


class ClosableReason(msgspec.Struct, kw_only=True):
    """A reason against closing. ``cause`` and ``samples`` are those of missing samples; only administrators see ``agent``."""

    code: str
    text: str
    cause: Cause | None
    samples: int
    agent: str | None


class ClosablePeriod(msgspec.Struct, kw_only=True):
    """Whether a period may be closed; ``reasons`` is empty if it may."""

    start: str
    end: str
    closable: bool
    reasons: list[ClosableReason]


def projects_of(rows: Iterable[CompletenessRow], group: GroupField | None, project_id: str | None) -> set[IdentityKey]:
    """Return the projects that ``rows`` are about, each about one."""
    ids = {row.group for row in rows} if group == "project_id" else {project_id}
    return {IdentityKey("project", each) for each in ids if each}


def completeness(
    row: CompletenessRow,
    group: GroupField | None,
    project_id: str | None = None,
    names: Mapping[IdentityKey, Sequence[NamePeriod]] | None = None,
    *,
    for_admin: bool,
) -> Completeness:
    """Return a row as JSON. ``names`` are all names of the projects that rows are about, as far as they are known."""
    project = row.group if group == "project_id" else project_id
    name = period_at((names or {}).get(IdentityKey("project", project or ""), ()), row.end)
    return Completeness(
        start=utc_text(row.start),
        end=utc_text(row.end),
        # A project that is not stated is null, as everywhere in the API.
        group={} if group is None else {group: (row.group or None) if group == "project_id" else row.group},
        project_name=None if name is None else name.name,
        expected=row.expected,
        received=row.received,
        unexpected=row.unexpected,
        late=row.late,
        missing=row.missing,
        percent=row.percent,
        causes=dict(row.causes),
        skipped=dict(row.skipped) if for_admin else {},
    )


def gap(found: Gap, *, for_admin: bool) -> CompletenessGap:
    """Return a gap as JSON."""
    return CompletenessGap(
        start=utc_text(found.start),
        end=None if found.end is None else utc_text(found.end),
        cause=cast("Cause", found.cause),
        reason=found.reason if for_admin else None,
        agent=found.agent if for_admin else None,
        pollster=found.pollster if for_admin else None,
        resources=list(found.resources),
        resource_count=found.resource_count,
        samples=found.samples,
        exact=found.exact,
    )


def agent(state: ReportingAgent) -> Agent:
    """Return an agent as JSON."""
    return Agent(
        agent=state.agent,
        daemon=state.daemon,
        host=state.host,
        state=state.state,
        first_due=utc_text(state.first_due),
        last_due=utc_text(state.last_due),
        silent_since=None if state.silent_since is None else utc_text(state.silent_since),
        interval_seconds=state.interval_seconds,
        resources=state.resources,
        waiting_reports=state.waiting_reports,
    )


def unmetered_resources(found: Unmetered) -> UnmeteredResources:
    """Return the result of a reconciliation as JSON."""
    return UnmeteredResources(
        kind=found.kind,
        at=utc_text(found.at),
        not_metered=found.not_metered,
        not_metered_ids=list(found.not_metered_ids),
        not_listed=found.not_listed,
        not_listed_ids=list(found.not_listed_ids),
    )


def audited_period(found: AuditedPeriod) -> AuditPeriod:
    """Return an audit period as JSON."""
    return AuditPeriod(
        start=utc_text(found.start),
        end=utc_text(found.end),
        hosts=found.hosts,
        hosts_not_run=found.hosts_not_run,
        errors=found.errors,
        sent=found.sent,
        arrived=found.arrived,
        missing=found.missing,
    )


HIDDEN_TEXTS = {
    "agent silent": "an agent has been silent since a time in the period: its samples may still arrive",
    "reports outstanding": "reports of an agent about the period have not arrived yet",
}
"""What tenants read instead of a text that names an agent, by code."""


def closable_period(answer: Closable, *, for_admin: bool) -> ClosablePeriod:
    """Return whether a period may be closed as JSON; without names of agents, equal reasons are listed once."""
    reasons = [
        ClosableReason(
            code=each.code,
            text=each.text if for_admin else HIDDEN_TEXTS.get(each.code, each.text),
            cause=cast("Cause | None", each.cause),
            samples=each.samples,
            agent=each.agent if for_admin else None,
        )
        for each in answer.reasons
    ]
    distinct = [each for n, each in enumerate(reasons) if each not in reasons[:n]] if not for_admin else reasons
    return ClosablePeriod(
        start=utc_text(answer.start), end=utc_text(answer.end), closable=answer.closable, reasons=distinct
    )
