"""The step *polled* of ``meter-doctor why``: whether an agent polled the resource at the time, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from datetime import timedelta

from meter.commands.doctor.evidence import DEFAULT_INTERVAL
from meter.commands.doctor.evidence import Evidence
from meter.commands.doctor.evidence import in_gap
from meter.commands.doctor.finding import TraceStep
from meter.completeness_query import FOLLOWING_INTERVALS
from meter.counts import counted
from meter.plugins.registry import LISTENER
from meter.store import SampleTrace
from meter.store import TracedFailure


def time_text(at: datetime) -> str:
    """Return a time as text."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def not_checked(evidence: Evidence, step: str, what: str) -> TraceStep:
    """Return a step that was not checked, as ``what`` could not be looked at."""
    reason = (evidence.not_looked_at or {}).get(what, "it was not asked")
    return TraceStep(step, "not checked", f"the {what} could not be looked at: {reason}")


def covering(evidence: Evidence) -> list[str]:
    """Return the agents that measure the resource at the time."""
    assert evidence.trace is not None
    return [each.agent for each in evidence.trace.metered if each.until_due is None or each.until_due > evidence.at]


def polled(evidence: Evidence, *, is_off: bool) -> TraceStep:
    """Return the step; ``is_off`` says that agents have switched off what would poll."""
    trace = evidence.trace
    if trace is None:
        return not_checked(evidence, "polled", "database")
    if is_off:
        return TraceStep("polled", "not checked", "an agent does not poll what is off")
    if not trace.metered:
        return _never_polled(evidence, trace)
    agents = covering(evidence)
    if not agents:
        last = trace.metered[0]
        assert last.until_due is not None
        return TraceStep(
            "polled",
            "stop",
            f"{last.agent} does not see the resource any more since {time_text(last.until_due)}"
            f"{f' ({last.ended})' if last.ended else ''}, and no other agent does",
            "if it still exists, look for it on its host: virsh list --all, or the service's API",
        )
    steps = [_polled_by(evidence, trace, agent) for agent in dict.fromkeys(agents)]
    return next((step for step in steps if step.state == "ok"), steps[0])


def _polled_by(evidence: Evidence, trace: SampleTrace, agent: str) -> TraceStep:
    metered = next(each for each in trace.metered if each.agent == agent)
    cycles = [each for each in trace.cycles if each.agent == agent and each.interval == metered.interval]
    dues = [each.last_due for each in cycles if each.last_due is not None]
    last = max(dues, default=None)
    following = min((each.next_due for each in cycles if each.next_due is not None), default=None)
    is_missed = last is None or evidence.at - last > timedelta(seconds=FOLLOWING_INTERVALS * metered.interval)
    if last is not None and following is not None:
        is_missed = is_missed or in_gap(evidence.at, last, following, metered.interval)
    for failure in failures_of(evidence, trace, agent):
        # What is said of a poll is about a cycle that ran, although its time may reach into one that did not.
        if is_missed and failure.pollster and failure.until_time <= evidence.at:
            continue
        if failure.cause not in ("spool dropped", "rejected", "expired", "not finalized"):
            reason = f": {failure.reason}" if failure.reason and failure.reason != failure.cause else ""
            who = failure.pollster or "all pollsters"
            return TraceStep(
                "polled",
                "stop",
                f"{agent}: {who}: {failure.cause} from {time_text(failure.from_time)} until before {time_text(failure.until_time)}{reason}",
                f"on {agent.partition('@')[2]}: the log of the agent at that time",
            )
    if last is not None and not is_missed:
        return TraceStep("polled", "ok", f"{agent} asked {metered.pollster} at {time_text(last)}")
    life = next((each for each in trace.lives if each.agent == agent), None)
    cause = "agent was stopped" if life is not None and life.stopped else "agent not running"
    state = next((each for each in evidence.daemons if each.name == agent), None)
    # Only a heartbeat that came after the missed cycle shows that the agent runs without polling.
    missing_since = (last or metered.first_due) + timedelta(seconds=FOLLOWING_INTERVALS * metered.interval)
    alive = (
        state is not None
        and not state.content.stopping
        and state.received_at > missing_since
        and not state.silent(evidence.now)
        and following is None
    )
    since = time_text(last) if last is not None else f"before {time_text(metered.first_due)}"
    if following is None and (waiting := _waiting_reports(evidence)):
        text = f"no cycle report of {agent} has arrived since {since}: {waiting}"
        return TraceStep("polled", "unknown", text, "start meter-collector: the reports then say what was polled")
    until = f" until {time_text(following)}" if following is not None else ""
    if alive:
        text = f"{agent} runs, but no cycle report of it has arrived since {since}"
        return TraceStep(
            "polled", "stop", text, "its log says what the last cycle waits for; its spool may hold the reports"
        )
    return TraceStep(
        "polled",
        "stop",
        f"{agent} is silent since {since}{until} ({cause})",
        "" if following is not None else f"on {agent.partition('@')[2]}: systemctl status {agent.partition('@')[0]}",
    )


def _waiting_reports(evidence: Evidence) -> str:
    """Return that reports wait without a collector, if they do: then their absence says nothing of the agents."""
    state = (evidence.queues or {}).get("meter.reports")
    if state is None or not state.messages or state.consumers:
        return ""
    return f"{counted(state.messages, 'message')} waiting in meter.reports, and no collector consumes them"


def failures_of(evidence: Evidence, trace: SampleTrace, agent: str) -> Iterator[TracedFailure]:
    """Yield the failures of the agent that concern the last cycle up to the time, the newest first.

    What the agent skipped without naming a resource comes last: it may be about another one.
    """
    since = evidence.at - timedelta(seconds=evidence.interval or DEFAULT_INTERVAL)
    for failure in sorted(trace.failures, key=lambda each: each.cause == "skipped" and not each.resource):
        if failure.agent == agent and failure.until_time > since:
            yield failure


def _never_polled(evidence: Evidence, trace: SampleTrace) -> TraceStep:
    if trace.cycles:
        agents = sorted({each.agent for each in trace.cycles})
        shown = ", ".join(agents[:3]) + (f" and {len(agents) - 3} more" if len(agents) > 3 else "")
        return TraceStep(
            "polled",
            "stop",
            f"none of the agents that poll it ({shown}) has seen the resource {evidence.resource} with this meter",
            "check that an agent runs on its host, and that the id is right: disks and interfaces have ids of their own",
        )
    listeners = [each.name for each in evidence.makers if each.kind is LISTENER]
    pollsters = [each.name for each in evidence.makers if each.kind is not LISTENER]
    if listeners and not pollsters:
        text = f"the meter is not polled: {', '.join(listeners)} makes it from notifications"
        return TraceStep(
            "polled",
            "unknown",
            text,
            "check that the service sends notifications: meter-notify explain FILE (docs/notifications)",
        )
    if pollsters and (waiting := _waiting_reports(evidence)):
        text = f"no cycle report names {', '.join(pollsters)}: {waiting}"
        return TraceStep("polled", "unknown", text, "start meter-collector: the reports then say what was polled")
    return TraceStep(
        "polled",
        "stop" if pollsters else "unknown",
        f"no cycle report names {', '.join(pollsters) or 'a pollster of the meter'}: no agent polls it, or agents are too old to tell",
        "start the agent on the resource's host, and read what its --check says",
    )
