"""What a cycle report changes in the tables of the ledger: computed here, once for every store.

:func:`outcome_by_number` says what becomes of a report by its number; :func:`apply_cycle` adds the changes of one that is applied to
:class:`CycleEffects`, in the order in which a store then makes them. docs/completeness-agents.rst has the rules.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta

import msgspec

from meter.completeness.ledger.causes import STILL_RUNNING
from meter.completeness.ledger.causes import Cause
from meter.completeness.ledger.ledger_changes import KEPT_MACS
from meter.completeness.ledger.ledger_changes import MAC_BYTES
from meter.completeness.ledger.ledger_changes import AgentState
from meter.completeness.ledger.ledger_changes import BootState
from meter.completeness.ledger.ledger_changes import CycleEffects
from meter.completeness.ledger.ledger_changes import CycleRunRow
from meter.completeness.ledger.ledger_changes import InactiveEdit
from meter.completeness.ledger.ledger_changes import OffScheduleGroup
from meter.completeness.ledger.ledger_changes import PollingExceptionRow
from meter.completeness.ledger.ledger_changes import SeriesEdit
from meter.completeness.ledger.ledger_changes import Succession
from meter.completeness.ledger.ledger_changes import WaitingReport
from meter.completeness_store import ReceivedCycle
from meter.completeness_store import ReportResult
from meter.completeness_store import WaitingRules
from meter.cycle_report import DOMAIN_HUNG
from meter.cycle_report import PollReport
from meter.cycle_report import SeriesGroup
from meter.cycle_report import SkipReport
from meter.message import parse_timestamp

INSTANT = timedelta(microseconds=1)

MAX_NAMED_RESOURCES = 1000
"""Resources of one skip of a pollster that get rows of their own; more than these are one row without a resource."""

MAX_MISSING = 100
"""Ranges of missing numbers that are kept of a boot: what comes later than that is not applied."""

# --- numbers -------------------------------------------------------------------------------------------------------


def outcome_by_number(received: ReceivedCycle, boot: BootState) -> ReportResult:
    """Return what becomes of a report by its number and signature alone; *applied* if it is the next one."""
    sequence = received.report.sequence
    if sequence == boot.applied + 1:
        return ReportResult("applied")
    if sequence > boot.applied:
        return ReportResult("waiting", f"report {boot.applied + 1} has not come yet")
    if any(first <= sequence <= last for first, last in boot.missing):
        return ReportResult("late", f"report {sequence} came after it was given up")
    kept = boot.mac(sequence)
    other = kept != received.mac[:MAC_BYTES] if kept is not None else received.due > boot.last_due
    if other:
        return ReportResult("conflict", f"another report of the boot {boot.boot} has the number {sequence}")
    return ReportResult("repeated")


def order_of_batch(reports: Sequence[ReceivedCycle]) -> list[int]:
    """Return the positions of reports that arrived together, in the order in which they are applied.

    The boots of an agent follow each other by the earliest cycle of each, as one that lost its spool does not name its predecessor;
    within a boot the numbers count, for its clock may be set back.
    """
    begins: dict[tuple[str, uuid.UUID], datetime] = {}
    for each in reports:
        key = each.report.agent, each.boot
        begins[key] = min(each.due, begins.get(key, each.due))

    def place(position: int) -> tuple[str, datetime, uuid.UUID, int]:
        each = reports[position]
        return each.report.agent, begins[each.report.agent, each.boot], each.boot, each.report.sequence

    return sorted(range(len(reports)), key=place)


def follows_earlier_boot(received: ReceivedCycle, applied: int) -> bool:
    """Return whether all reports of the earlier boot that the first report of a boot names were applied, up to ``applied``."""
    confirmed = received.report.confirmed
    return received.report.sequence != 1 or confirmed is None or applied >= confirmed.sequence


def follows_predecessors(received: ReceivedCycle, agents: Mapping[str, AgentState]) -> bool:
    """Return whether all reports of the agents whose lists it succeeds were applied; ``agents`` are those that are known."""
    for name, due in received.predecessors.items():
        last_due = agents[name].last_due if name in agents else None
        if last_due is None or last_due < due:
            return False
    return True


def gives_up(rules: WaitingRules, waiting: Sequence[WaitingReport]) -> bool:
    """Return whether the reports of a boot that wait for lower numbers wait no longer."""
    seconds = max((each.seconds for each in waiting), default=0.0)
    return (
        seconds >= rules.max_seconds
        or len(waiting) >= rules.max_reports
        or sum(each.bytes for each in waiting) >= rules.max_bytes
        or (seconds >= rules.seconds and any(each.whole for each in waiting))
    )


def give_up_before(received: ReceivedCycle, agent: AgentState, boot: BootState, effects: CycleEffects) -> None:
    """Give up the numbers below that of ``received``, which is applied next: an exception with an unknown cause says so."""
    first, last = boot.applied + 1, received.report.sequence - 1
    if first > last:
        return
    intervals = [poll.interval_seconds for poll in received.report.polls]
    began = boot.last_due if boot.applied else received.due - timedelta(seconds=min(intervals, default=0))
    effects.add_exception(
        PollingExceptionRow(
            agent.id,
            pollster="",
            interval=0.0,
            resource="",
            cause="unknown",
            reason=f"report {first} is missing" if first == last else f"reports {first} to {last} are missing",
            from_time=min(began, received.due),
            until_time=max(began, received.due),
            cycles=min(last - first + 1, 2**31 - 1),
        )
    )
    if not boot.applied:
        boot.first_due = boot.last_due = received.due
    boot.missing = [*boot.missing, (first, last)][-MAX_MISSING:]
    boot.macs = (boot.macs + bytes(MAC_BYTES) * min(last - first + 1, KEPT_MACS))[-MAC_BYTES * KEPT_MACS :]
    boot.applied = last


# --- application ---------------------------------------------------------------------------------------------------


def apply_cycle(
    received: ReceivedCycle,
    agents: Mapping[str, AgentState],
    boot: BootState,
    effects: CycleEffects,
    *,
    late: bool = False,
) -> None:
    """Apply a report, which is the next one of its boot, or one that came ``late``, and advance its agent and ``boot``.

    ``agents`` are its agent and those whose lists it succeeds, as far as they are known.
    """
    agent = agents[received.report.agent]
    report, due = received.report, received.due
    if not boot.applied:
        boot.first_due = boot.last_due = due  # until now those of a report that waits
    if due < boot.last_due and not late:
        # It explains no missing sample: the cycles of this time took place before, and those that follow have earlier times.
        effects.add_exception(
            PollingExceptionRow(
                agent.id,
                pollster="",
                interval=0.0,
                resource="",
                cause="unknown",
                reason=f"the agent's clock was set back by {(boot.last_due - due).total_seconds():.0f} s",
                from_time=due,
                until_time=boot.last_due,
                cycles=0,
                expected=False,
            )
        )
    _add_cycle(received, agent, effects, late=late)
    for exception in _exceptions(received, agent):
        effects.add_exception(exception)
    effects.off_schedule += [
        OffScheduleGroup(agent.id, off.pollster, parse_timestamp(off.at, "at"), off.series)
        for off in report.off_schedule
    ]
    if not late:
        if _takes_over(received, agent):
            agent.newest_boot = received.boot
        if agent.newest_boot == received.boot:
            _change_series(received, agent, agents, effects)
        boot.applied = report.sequence
        boot.macs = (boot.macs + received.mac[:MAC_BYTES])[-MAC_BYTES * KEPT_MACS :]
        boot.stopped = report.stopping
    else:
        boot.missing = _without(boot.missing, report.sequence)
        boot.keep_mac(report.sequence, received.mac)
    boot.first_due, boot.last_due = min(boot.first_due, due), max(boot.last_due, due)
    agent.last_due = due if agent.last_due is None else max(agent.last_due, due)


def _takes_over(received: ReceivedCycle, agent: AgentState) -> bool:
    """Return whether the series of the agent are those of this boot from now on.

    That is the boot with the newest cycle, or one that names the newest so far as its predecessor, for its clock may be set back.
    """
    confirmed = received.report.confirmed
    return (
        agent.last_due is None
        or received.due > agent.last_due
        or (confirmed is not None and confirmed.boot.lower() == str(agent.newest_boot))
    )


def _change_series(
    received: ReceivedCycle, agent: AgentState, agents: Mapping[str, AgentState], effects: CycleEffects
) -> None:
    """Change what the agent measures from this cycle on, but never what was told of earlier ones: its clock may be set back."""
    report = received.report
    at = received.due
    if agent.last_due is not None and not (at == agent.last_due and all(poll.continued for poll in report.polls)):
        at = max(at, agent.last_due + INSTANT)
    edits = [
        SeriesEdit(
            agent.id,
            poll.pollster,
            poll.interval_seconds,
            at,
            (poll.whole or poll.listed_from is not None) and poll.outcome == "ok",
            poll.series,
            _unlisted(poll.removed, poll.series),
            "" if poll.whole else poll.listed_from or "",
            "" if poll.whole else poll.listed_before,
            _succession(poll, at, agent, agents),
        )
        for poll in report.polls
        if poll.whole or poll.listed_from is not None or poll.series or poll.removed
    ]
    if report.standby:
        edits.append(SeriesEdit(agent.id, "", 0.0, at, complete=True, series=(), removed=()))
    if edits:
        effects.series.append(edits)
        agent.last_due = at  # the next change is later, even if the clock stays behind
    if report.sequence == 1 or report.inactive or any(poll.whole for poll in report.polls):
        effects.inactive.append(InactiveEdit(agent.id, at, report.inactive))


def _succession(
    poll: PollReport, at: datetime, agent: AgentState, agents: Mapping[str, AgentState]
) -> Succession | None:
    """Return what ends of the agent whose list a poll succeeds, but never what was told of its last cycle."""
    before = agents.get(poll.succeeds.agent) if poll.succeeds is not None else None
    if before is None or before.last_due is None or before.id == agent.id or poll.outcome != "ok":
        return None
    if not poll.whole and poll.listed_from is None:
        return None
    if before.last_due < at:
        return Succession(before.id, at, gone=True)
    return Succession(before.id, before.last_due + INSTANT, gone=False)


def _unlisted(removed: tuple[SeriesGroup, ...], listed: tuple[SeriesGroup, ...]) -> tuple[SeriesGroup, ...]:
    """Return ``removed`` without what the same poll lists."""
    if not removed or not listed:
        return removed
    stays = {(each.meters, each.project or "", resource) for each in listed for resource in each.resources}
    found = []
    for group in removed:
        key = group.meters, group.project or ""
        rest = tuple(resource for resource in group.resources if (*key, resource) not in stays)
        if rest:
            found.append(msgspec.structs.replace(group, resources=rest))
    return tuple(found)


def _add_cycle(received: ReceivedCycle, agent: AgentState, effects: CycleEffects, *, late: bool) -> None:
    """Extend the run of each interval, or begin one."""
    by_interval: dict[float, list[str]] = {}
    for poll in received.report.polls:
        if not poll.continued:
            by_interval.setdefault(poll.interval_seconds, []).append(poll.pollster)
    for interval, names in by_interval.items():
        key, pollsters = (agent.id, received.boot, interval), tuple(sorted(names))
        run = None if late else effects.runs.get(key)
        if run is not None and run.continues(received.due, pollsters):
            run.last_due = received.due
            run.cycles += 1
        else:
            sequence = received.report.sequence
            run = CycleRunRow(agent.id, received.boot, interval, sequence, received.due, received.due, 1, pollsters)
            if not late:
                effects.runs[key] = run
        effects.changed_runs[*key, run.first_sequence] = run


def _exceptions(received: ReceivedCycle, agent: AgentState) -> Iterator[PollingExceptionRow]:
    report, due = received.report, received.due
    for poll in report.polls:
        yield from _exceptions_of_poll(poll, agent.id, due)
    longest = max((poll.interval_seconds for poll in report.polls), default=0.0)
    for dropped in report.dropped:
        # Samples are spooled after the time of their cycle: at most one interval, or the cycle was skipped.
        yield PollingExceptionRow(
            agent.id,
            pollster="",
            interval=0.0,
            resource="",
            cause="spool dropped",
            reason=dropped.reason,
            from_time=parse_timestamp(dropped.first, "first") - timedelta(seconds=longest),
            until_time=parse_timestamp(dropped.last, "last") + INSTANT,
            samples=dropped.samples,
        )
    for skipped in report.skipped_cycles:
        yield PollingExceptionRow(
            agent.id,
            pollster="",
            interval=skipped.interval_seconds,
            resource="",
            cause="skipped",
            reason="an earlier cycle took longer than its interval",
            from_time=parse_timestamp(skipped.first, "first"),
            until_time=parse_timestamp(skipped.last, "last") + timedelta(seconds=skipped.interval_seconds),
            cycles=min(skipped.cycles, 2**31 - 1),
        )


def _exceptions_of_poll(poll: PollReport, agent_id: int, due: datetime) -> Iterator[PollingExceptionRow]:
    until = due + timedelta(seconds=poll.interval_seconds)

    def exception(
        cause: Cause, reason: str, resource: str = "", samples: int = 0, *, expected: bool = True
    ) -> PollingExceptionRow:
        return PollingExceptionRow(
            agent_id,
            poll.pollster,
            poll.interval_seconds,
            resource,
            cause,
            reason,
            due,
            until,
            samples=samples,
            expected=expected,
        )

    if poll.continued:
        pass  # the report of the poll itself has its outcome
    elif not poll.asked:
        yield exception("skipped", STILL_RUNNING)
    elif poll.outcome == "not stored":
        yield exception("spool dropped", ": ".join(filter(None, ("not stored", poll.error))))
    elif poll.outcome != "ok":
        yield exception("poll failed", ": ".join(filter(None, (poll.outcome, poll.error))))
    # A series that is not measured, and whose resource no skip names, is removed: nothing of an unnamed skip is expected.
    unnamed = {skip.reason for skip in poll.skipped} - {skip.reason for skip in poll.skipped if skip.resources}
    for (reason, resource), samples in _skipped(poll.skipped).items():
        cause: Cause = "domain hung" if reason == DOMAIN_HUNG else "skipped"
        yield exception(cause, reason, resource, samples, expected=reason not in unnamed)


def _skipped(skipped: Iterable[SkipReport]) -> dict[tuple[str, str], int]:
    """Return the skipped samples by reason and resource; those of several resources are divided among them."""
    found: dict[tuple[str, str], int] = {}
    for skip in skipped:
        named: Sequence[str] = sorted(set(skip.resources))
        if not named or len(named) > MAX_NAMED_RESOURCES:
            named = ("",)
        each, rest = divmod(skip.samples, len(named))
        for position, resource in enumerate(named):
            key = skip.reason, resource
            found[key] = found.get(key, 0) + each + (position < rest)
    return found


def _without(ranges: Iterable[tuple[int, int]], number: int) -> list[tuple[int, int]]:
    """Return ``ranges`` without ``number``."""
    found = []
    for first, last in ranges:
        if first <= number <= last:
            found += [each for each in ((first, number - 1), (number + 1, last)) if each[0] <= each[1]]
        else:
            found.append((first, last))
    return found[-MAX_MISSING:]
