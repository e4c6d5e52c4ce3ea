"""``meter-doctor why``: judges at which step, between the pollster and the API, the samples of a meter of a resource stop.

The steps, in the order in which a sample takes them: *installed*, *enabled*, *polled*, *spooled*, *published*, *accepted*, *kept*, *stored*, *visible*.
This module judges the evidence that :mod:`~meter.commands.doctor.collection` collects.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import timedelta

from meter.commands.doctor.evidence import DEFAULT_INTERVAL
from meter.commands.doctor.evidence import Evidence
from meter.commands.doctor.finding import TraceStep
from meter.commands.doctor.polled_step import covering
from meter.commands.doctor.polled_step import failures_of
from meter.commands.doctor.polled_step import not_checked
from meter.commands.doctor.polled_step import polled
from meter.commands.doctor.polled_step import time_text
from meter.counts import counted
from meter.plugins.registry import Decision
from meter.store import TracedInactivity

STEPS = ("installed", "enabled", "polled", "spooled", "published", "accepted", "kept", "stored", "visible")


def why(evidence: Evidence) -> tuple[str, list[TraceStep]]:
    """Return the verdict, one line, and the steps."""
    if evidence.arrives:
        steps = [TraceStep("stored", "ok", _stored_text(evidence)), _visible(evidence)]
    else:
        steps = [
            _installed(evidence),
            _enabled(evidence),
            polled(evidence, is_off=bool(_off_on_agents(evidence))),
            _spooled(evidence),
            _published(evidence),
            _accepted(evidence),
            _kept(evidence),
            _stored(evidence),
        ]
    return _verdict(evidence, steps), steps


def _verdict(evidence: Evidence, steps: Sequence[TraceStep]) -> str:
    for step in steps:
        if step.state == "stop":
            return f"stops at: {step.name} — {step.text}"
    if evidence.arrives:
        return f"arrives — {steps[0].text}"
    for wanted in ("unknown", "not checked"):
        for step in reversed(steps):
            if step.state == wanted:
                return f"unknown — no step explains it; {step.name}: {step.text}"
    return "unknown — no step explains it"


def _installed(evidence: Evidence) -> TraceStep:
    trace = evidence.trace
    if evidence.makers:
        named = ", ".join(f"{each.kind.name} plugin {each.name}" for each in evidence.makers)
        return TraceStep("installed", "ok", f"made by: {named}")
    if trace is not None and (trace.metered or trace.inactive or trace.known_meter):
        return TraceStep(
            "installed",
            "ok",
            "no plugin on this host declares the meter, but an agent reports it or samples of it are stored",
        )
    if evidence.letters:
        return TraceStep("installed", "ok", "no plugin on this host declares the meter, but a dead letter names it")
    known = sorted({meter.name for each in evidence.plugins if each.plugin is not None for meter in each.plugin.meters})
    close = difflib.get_close_matches(evidence.meter, known, 3)
    return TraceStep(
        "installed",
        "stop",
        f"no installed pollster or listener makes the meter {evidence.meter}, and no agent has reported one",
        f"did you mean {', '.join(close)}?"
        if close
        else "install the plugin that makes it (docs/plugins), or submit it to the API",
    )


def _enabled(evidence: Evidence) -> TraceStep:
    trace = evidence.trace
    if inactive := _off_on_agents(evidence):
        first = inactive[0]
        more = f" and on {len(inactive) - 1} more agents" if len(inactive) > 1 else ""
        return TraceStep(
            "enabled",
            "stop",
            f"the {_off_name(evidence, first)} is {'disabled' if first.disabled else 'not applicable'} on {first.agent}{more}"
            f" since {time_text(first.since)}: {first.reason}",
            "change the setting, or provide what the pollster needs, and restart the agent",
        )
    if trace is not None and covering(evidence):
        return TraceStep("enabled", "ok", f"an agent measures the meter with the pollster {trace.metered[0].pollster}")
    makers = evidence.makers
    off = [each for each in makers if each.state in ("disabled", "broken") or not each.takes(evidence.meter)]
    if makers and len(off) == len(makers) and not (trace is not None and trace.cycles):
        text = "; ".join(f"{each.name} is {_off(each, evidence.meter)}" for each in off)
        return TraceStep("enabled", "stop", f"on this host {text}", "change [plugins] disable, and restart the daemon")
    if not makers:
        return TraceStep("enabled", "unknown", "no agent has reported whether a plugin that makes the meter is enabled")
    return TraceStep(
        "enabled", "ok", f"the configuration of this host does not disable {', '.join(_active_names(evidence))}"
    )


def _off_on_agents(evidence: Evidence) -> list[TracedInactivity]:
    """Return the pollsters that would measure the meter of the resource and are off at the time; none if another one measures it."""
    trace = evidence.trace
    if trace is None or not trace.inactive:
        return []
    off = {(each.agent, each.pollster): each for each in trace.inactive}
    current = [each for each in trace.metered if each.until_due is None or each.until_due > evidence.at]
    if not current and trace.metered:
        # An agent that starts again without the pollster ends its statements; a resource that went before did not end so.
        last = trace.metered[0]
        found = off.get((last.agent, last.pollster))
        ended = last.until_due
        return [found] if found and ended and found.since <= ended + timedelta(seconds=last.interval) else []
    if current:
        measuring = dict.fromkeys((each.agent, each.pollster) for each in current)
        return [off[each] for each in measuring] if measuring.keys() <= off.keys() else []
    agents_off = {each.agent for each in trace.inactive}
    return list(trace.inactive) if all(each.agent in agents_off for each in trace.cycles) else []


def _off_name(evidence: Evidence, off: TracedInactivity) -> str:
    declared = {
        meter.name
        for each in evidence.makers
        if each.name == off.pollster and each.plugin is not None
        for meter in each.plugin.meters
    }
    is_partly_off = bool(off.meters) and not declared <= set(off.meters)
    return f"meter {evidence.meter} of the pollster {off.pollster}" if is_partly_off else f"pollster {off.pollster}"


def _active_names(evidence: Evidence) -> list[str]:
    return [each.name for each in evidence.makers if each.state not in ("disabled", "broken")]


def _off(decision: Decision, meter: str) -> str:
    if decision.state in ("disabled", "broken"):
        return f"{decision.state}: {decision.reason}"
    return f"enabled without {meter}: [plugins] disable has {', '.join(decision.meters_off)}"


def _spooled(evidence: Evidence) -> TraceStep:
    trace = evidence.trace
    if trace is None:
        return not_checked(evidence, "spooled", "database")
    agents = covering(evidence)
    for agent in agents:
        for failure in failures_of(evidence, trace, agent):
            if failure.cause == "spool dropped":
                return TraceStep(
                    "spooled",
                    "stop",
                    f"the spool of {agent} dropped samples from {time_text(failure.from_time)} on: {failure.reason}",
                    "raise [spool] max_bytes or max_age_seconds; the samples are lost",
                )
    for state in evidence.daemons:
        spool = state.content.spool
        if state.name in agents and spool is not None and spool.messages:
            oldest = state.clock - timedelta(seconds=spool.oldest_seconds)
            if oldest <= evidence.at:
                why_not = [f"{each.name}: {each.reason}" for each in state.content.dependencies if not each.ready]
                return TraceStep(
                    "spooled",
                    "stop",
                    f"{counted(spool.messages, 'message')} waiting in the spool of {state.name}, from {time_text(oldest)} on"
                    + (f": {'; '.join(why_not)}" if why_not else ""),
                    "they are sent once the broker takes them; nothing is lost",
                )
    return TraceStep("spooled", "ok", "no spool has old messages or has dropped any, according to the agents' reports")


def _published(evidence: Evidence) -> TraceStep:
    if evidence.queues is None:
        return not_checked(evidence, "published", "broker")
    state = evidence.queues.get("meter.metering")
    if evidence.queues and state is None:
        text = "there is no queue meter.metering: no collector has ever used this broker"
        return TraceStep("published", "stop", text, "start meter-collector")
    if state is not None and state.messages and not state.consumers:
        text = f"{counted(state.messages, 'message')} waiting in meter.metering, and no collector consumes them"
        return TraceStep("published", "stop", text, "start meter-collector; nothing is lost")
    if state is not None and state.messages:
        return TraceStep(
            "published", "ok", f"meter.metering is being consumed, and has {counted(state.messages, 'message')}"
        )
    return TraceStep("published", "ok", "no messages wait for a collector")


def _accepted(evidence: Evidence) -> TraceStep:
    if evidence.letters:
        letter = evidence.letters[-1]
        text = f"dead letter {letter.id} of {letter.at[:19]} ({letter.kind}): {letter.reason}"
        return TraceStep(
            "accepted", "stop", text, f"meter-dead-letters show {letter.id[:8]}; correct the cause, then replay it"
        )
    if evidence.trace is not None and evidence.trace.rejected:
        first = evidence.trace.rejected[0]
        text = f"{counted(first.samples, 'sample')} of the hour of {time_text(first.start)} {'was' if first.samples == 1 else 'were'} rejected as {first.kind}"
        return TraceStep("accepted", "stop", text, "meter-dead-letters list shows them, unless they were discarded")
    if evidence.letters is None:
        return not_checked(evidence, "accepted", "dead letters")
    if evidence.letters_left:
        text = f"there are so many dead letters that {evidence.letters_left} of them were not searched"
        return TraceStep("accepted", "unknown", text, "meter-dead-letters list; replay or discard the others first")
    return TraceStep("accepted", "ok", "no dead letter names this meter and resource")


def _kept(evidence: Evidence) -> TraceStep:
    trace = evidence.trace
    if trace is None:
        return not_checked(evidence, "kept", "database")
    if trace.cutoff is not None and trace.cutoff > evidence.at:
        rolled = f"; rollups have samples until {time_text(trace.rolled_up)}" if trace.rolled_up is not None else ""
        text = f"samples before {time_text(trace.cutoff)} have expired by retention{rolled}"
        return TraceStep(
            "kept",
            "stop",
            text,
            "statistics by hour and day may still contain them; [store] retention_days is the retention",
        )
    since = evidence.at - timedelta(seconds=2 * (evidence.interval or DEFAULT_INTERVAL))
    if trace.voided is not None and trace.voided.timestamp > since:
        text = f"the sample of {time_text(trace.voided.timestamp)} was voided by {trace.voided.voided_by}: {trace.voided.reason}"
        return TraceStep(
            "kept", "stop", text, "meter-audit list shows who voided it and why; meter-db unvoid restores samples"
        )
    return TraceStep("kept", "ok", "no sample of that time was voided or has expired")


def _stored(evidence: Evidence) -> TraceStep:
    trace = evidence.trace
    if trace is None:
        return not_checked(evidence, "stored", "database")
    if trace.newest:
        return TraceStep("stored", "unknown", f"no newer sample is stored: {_stored_text(evidence)}")
    unknown = [
        word
        for word, known in (
            (f"resource {evidence.resource}", trace.known_resource),
            (f"meter {evidence.meter}", trace.known_meter),
        )
        if not known
    ]
    text = (
        f"the database knows no {' and no '.join(unknown)}"
        if unknown
        else "no sample of the meter and resource is stored"
    )
    return TraceStep("stored", "unknown", text)


def _stored_text(evidence: Evidence) -> str:
    assert evidence.trace is not None
    newest = evidence.trace.newest[0]
    later = f"; the next one is of {time_text(evidence.trace.next)}" if evidence.trace.next is not None else ""
    return (
        f"the newest sample up to {time_text(evidence.at)} is of {time_text(newest.timestamp)}, recorded at"
        f" {time_text(newest.recorded_at)}, volume {newest.volume:g}, project {newest.project or 'none'}{later}"
    )


def _visible(evidence: Evidence) -> TraceStep:
    assert evidence.trace is not None
    projects = list(dict.fromkeys(each.project for each in evidence.trace.newest))
    if not evidence.project:
        named = [each for each in projects if each]
        tenants = f", and to the project {', '.join(named)}" if named else " only: the samples have no project"
        return TraceStep("visible", "ok", f"to administrators{tenants}")
    if evidence.project not in projects:
        owner = projects[0] or "no project"
        return TraceStep(
            "visible",
            "stop",
            f"the samples belong to {owner}, so that the project {evidence.project} cannot see them",
            "an administrator sees them; [[compute.owners]] or the owner in the service decides to which project they belong",
        )
    if projects[0] != evidence.project:
        own = next(each for each in evidence.trace.newest if each.project == evidence.project)
        text = f"the resource belongs to {projects[0] or 'no project'} now; the project {evidence.project} sees samples until"
        return TraceStep("visible", "stop", f"{text} {time_text(own.timestamp)}", "an administrator sees all of them")
    return TraceStep("visible", "ok", f"to the project {evidence.project}")
