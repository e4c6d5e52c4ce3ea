"""``meter-doctor why``: which step is named for which evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
from twisted.python import usage

from meter.bus.amqp import QueueState
from meter.bus.dead_letters import parse_dead_letter
from meter.commands.command import options_first
from meter.commands.doctor.collection import names_both
from meter.commands.doctor.command import Options
from meter.commands.doctor.daemons import DaemonState
from meter.commands.doctor.evidence import Evidence
from meter.commands.doctor.finding import steps_as_json
from meter.commands.doctor.finding import steps_as_text
from meter.commands.doctor.why import STEPS
from meter.commands.doctor.why import why
from meter.heartbeat import DependencyState
from meter.heartbeat import Heartbeat
from meter.heartbeat import SpoolState
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.sample import MeterDefinition
from meter.store.maintenance.sample_trace import SampleTrace
from meter.store.maintenance.sample_trace import TracedAgent
from meter.store.maintenance.sample_trace import TracedCycles
from meter.store.maintenance.sample_trace import TracedFailure
from meter.store.maintenance.sample_trace import TracedInactivity
from meter.store.maintenance.sample_trace import TracedRejection
from meter.store.maintenance.sample_trace import TracedResource
from meter.store.maintenance.sample_trace import TracedSample
from meter.store.maintenance.sample_trace import TracedVoiding

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
AGENT = "meter-compute@host1"


def ago(minutes):
    return NOON - timedelta(minutes=minutes)


class Plugin:
    def __init__(self, *meters):
        self.meters = tuple(MeterDefinition(name, "gauge", "B") for name in meters)


CPU = Decision(kind=COMPUTE, name="cpu", origin="x", state="pending", plugin=Plugin("cpu", "cpu_util"))
NOVA = Decision(kind=LISTENER, name="nova.instance", origin="x", state="pending", plugin=Plugin("instance:*"))

NOTHING = SampleTrace(
    known_resource=True,
    known_meter=True,
    newest=[],
    next=None,
    rolled_up=None,
    voided=None,
    cutoff=None,
    metered=[],
    cycles=[],
    failures=[],
    lives=[],
    inactive=[],
    rejected=[],
)
MEASURED = NOTHING._replace(
    metered=[TracedResource(AGENT, "cpu", 300.0, "p", ago(600), None)],
    cycles=[TracedCycles(AGENT, 300.0, ago(2), None)],
    newest=[TracedSample("p", 300.0, ago(60), ago(59), 1.0)],
)


def evidence(trace=MEASURED, **more):
    given = {
        "resource": "r1",
        "meter": "cpu",
        "at": NOON,
        "now": NOON,
        "plugins": [CPU, NOVA],
        "queues": {},
        "letters": [],
    }
    return Evidence(trace=trace, **(given | more))


def verdict(*arguments, **more):
    text, steps = why(evidence(*arguments, **more))
    assert [step.name for step in steps] == [name for name in STEPS if name in {step.name for step in steps}]
    return text


def state(**more):
    content = Heartbeat(
        AGENT, "meter-compute", "host1", "b", 1, "1", "2026-11-27T00:00:00", "2026-11-27T12:00:00", **more
    )
    return DaemonState(AGENT, NOON, NOON, content)


def failed(cause, reason="", minutes=10):
    return TracedFailure(AGENT, "cpu", "", cause, reason, ago(minutes), ago(-1))


def letter(body=b"", **headers):
    given = {
        "meter-id": "0123456789abcdef",
        "meter-at": "2026-11-27T11:58:00",
        "meter-kind": "unverified",
        "meter-reason": "no key",
    }
    return parse_dead_letter({**given, **headers}, body)


def test_a_fresh_sample_arrives_whatever_else_is_wrong():
    fresh = MEASURED._replace(newest=[TracedSample("p", 300.0, ago(3), ago(2), 1.0)], failures=[failed("poll failed")])
    assert verdict(fresh).startswith(
        "arrives — the newest sample up to 2026-11-27 12:00:00 UTC is of 2026-11-27 11:57:00 UTC"
    )


def test_a_meter_that_nothing_makes_stops_at_once_with_a_suggestion():
    text, steps = why(evidence(NOTHING._replace(known_meter=False), meter="cpu_utl"))
    assert text.startswith("stops at: installed — no installed pollster or listener makes the meter cpu_utl")
    assert "did you mean cpu_util, cpu?" in steps[0].advice


def test_a_meter_of_a_client_of_the_api_needs_no_plugin():
    assert not verdict(NOTHING, meter="lamp.power").startswith("stops at: installed")
    unknown = NOTHING._replace(known_meter=False)
    assert verdict(unknown, meter="lamp.power", letters=[letter()]).startswith("stops at: accepted")


def test_a_plugin_that_is_switched_off_is_named_with_its_setting():
    off = replace(CPU, state="disabled", reason="[plugins] disable has cpu*")
    assert (
        verdict(NOTHING, plugins=[off])
        == "stops at: enabled — on this host cpu is disabled: [plugins] disable has cpu*"
    )
    without = replace(CPU, meters_off=("cpu_ut*",))
    text = verdict(NOTHING, plugins=[without], meter="cpu_util")
    assert text == "stops at: enabled — on this host cpu is enabled without cpu_util: [plugins] disable has cpu_ut*"


def test_a_pollster_that_is_off_on_the_agents_is_named():
    inactive = [TracedInactivity(AGENT, "cpu", True, "[plugins] disable has cpu", ago(500))]
    assert verdict(NOTHING._replace(inactive=inactive)) == (
        f"stops at: enabled — the pollster cpu is disabled on {AGENT} since 2026-11-27 03:40:00 UTC: [plugins] disable has cpu"
    )


OFF = TracedInactivity(AGENT, "cpu", True, "[plugins] disable has cpu", ago(60), ["cpu", "cpu_util"])
OFF_TEXT = f"is disabled on {AGENT} since 2026-11-27 11:00:00 UTC: [plugins] disable has cpu"


@pytest.mark.parametrize("until", [None, ago(60), ago(58)])
def test_a_pollster_that_was_switched_off_is_named_although_it_polled_before(until):
    measured = TracedResource(AGENT, "cpu", 300.0, "p", ago(600), until)
    trace = MEASURED._replace(
        metered=[measured], cycles=[TracedCycles(AGENT, 300.0, ago(61), None)], inactive=[OFF], failures=[]
    )
    text, steps = why(evidence(trace))
    assert text == f"stops at: enabled — the pollster cpu {OFF_TEXT}"
    assert [step.state for step in steps if step.name == "polled"] == ["not checked"]


def test_a_resource_that_went_before_its_pollster_was_switched_off_is_gone():
    gone = TracedResource(AGENT, "cpu", 300.0, "p", ago(600), ago(120))
    assert verdict(MEASURED._replace(metered=[gone], inactive=[OFF])).startswith("stops at: polled")


def test_a_meter_that_is_switched_off_in_an_active_pollster_is_named():
    off = OFF._replace(meters=["cpu_util"], reason="[plugins] disable has cpu_ut*")
    text = "stops at: enabled — the meter cpu_util of the pollster cpu " + OFF_TEXT.replace("has cpu", "has cpu_ut*")
    assert verdict(MEASURED._replace(inactive=[off]), meter="cpu_util") == text
    never = NOTHING._replace(cycles=MEASURED.cycles, inactive=[off])
    assert verdict(never, meter="cpu_util") == text


def test_a_pollster_that_is_off_elsewhere_is_not_the_reason():
    other = OFF._replace(agent="meter-compute@host2")
    for trace in (MEASURED, NOTHING._replace(cycles=MEASURED.cycles)):
        assert not verdict(trace._replace(inactive=[other])).startswith("stops at: enabled")
    both = [TracedResource(each, "cpu", 300.0, "p", ago(600), None) for each in (AGENT, "meter-compute@host2")]
    assert not verdict(MEASURED._replace(metered=both, inactive=[other])).startswith("stops at: enabled")


@pytest.mark.parametrize(("stopped", "cause"), [(False, "agent not running"), (True, "agent was stopped")])
def test_an_agent_without_cycles_is_silent(stopped, cause):
    trace = MEASURED._replace(
        cycles=[TracedCycles(AGENT, 300.0, ago(60), None)], lives=[TracedAgent(AGENT, ago(60), stopped)]
    )
    assert verdict(trace) == f"stops at: polled — {AGENT} is silent since 2026-11-27 11:00:00 UTC ({cause})"


def test_a_gap_in_the_past_has_an_end():
    trace = MEASURED._replace(cycles=[TracedCycles(AGENT, 300.0, ago(60), ago(-30))])
    assert verdict(trace).endswith(
        "silent since 2026-11-27 11:00:00 UTC until 2026-11-27 12:30:00 UTC (agent not running)"
    )


@pytest.mark.parametrize("minutes", [0, 4])
def test_a_short_gap_in_the_past_is_named_from_its_first_missed_cycle_on(minutes):
    last, following = ago(5 + minutes), ago(-5)
    trace = MEASURED._replace(
        newest=[TracedSample("p", 300.0, last, last, 1.0)],
        next=following,
        cycles=[TracedCycles(AGENT, 300.0, last, following)],
        failures=[failed("skipped", "missing", minutes=60)._replace(until_time=ago(minutes))],
    )
    assert verdict(trace) == (
        f"stops at: polled — {AGENT} is silent since {last:%Y-%m-%d %H:%M:%S} UTC until 2026-11-27 12:05:00 UTC"
        " (agent not running)"
    )


def test_a_sample_that_is_not_due_yet_is_not_missing():
    last, following = ago(4), ago(-4)
    trace = MEASURED._replace(newest=[TracedSample("p", 300.0, last, last, 1.0)], next=following)
    assert verdict(trace).startswith("arrives")


def test_an_agent_that_runs_without_reports_is_not_called_dead():
    trace = MEASURED._replace(cycles=[TracedCycles(AGENT, 300.0, ago(60), None)])
    assert "runs, but no cycle report of it has arrived" in verdict(trace, daemons=[state()])
    before = replace(state(), received_at=ago(55))  # before a cycle was missing
    assert "is silent since" in verdict(trace, daemons=[before])
    assert "is silent since" in verdict(trace, daemons=[state(stopping=True)])


@pytest.mark.parametrize("cause", ["poll failed", "domain hung", "skipped", "pollster off", "unknown"])
def test_a_failed_poll_is_named_with_its_error(cause):
    text = verdict(MEASURED._replace(failures=[failed(cause, "libvirt: no answer")]))
    assert text.startswith(f"stops at: polled — {AGENT}: cpu: {cause} from 2026-11-27 11:50:00 UTC")
    assert text.endswith(": libvirt: no answer")


def test_a_failure_that_names_the_resource_comes_before_what_was_skipped_somewhere():
    failures = [failed("skipped", "missing"), failed("domain hung")._replace(resource="r1")]
    assert verdict(MEASURED._replace(failures=failures)).startswith(
        f"stops at: polled — {AGENT}: cpu: domain hung from"
    )


def test_a_failure_of_long_ago_is_not_the_reason():
    old = failed("poll failed")._replace(until_time=ago(55))
    assert not verdict(MEASURED._replace(failures=[old])).startswith("stops at: polled")


def test_a_resource_that_is_gone_and_one_that_was_never_seen():
    gone = MEASURED._replace(metered=[TracedResource(AGENT, "cpu", 300.0, "p", ago(600), ago(60))])
    ended = gone._replace(metered=[gone.metered[0]._replace(ended="migrated")])
    assert "since 2026-11-27 11:00:00 UTC (migrated), and no other agent does" in verdict(ended)
    assert verdict(gone).startswith(
        f"stops at: polled — {AGENT} does not see the resource any more since 2026-11-27 11:00:00"
    )
    unseen = NOTHING._replace(cycles=MEASURED.cycles)
    assert verdict(unseen).startswith(
        f"stops at: polled — none of the agents that poll it ({AGENT}) has seen the resource r1"
    )


def test_one_of_two_agents_that_measures_is_enough():
    other = TracedResource("meter-compute@host2", "cpu", 300.0, "p", ago(500), None)
    trace = MEASURED._replace(
        metered=[*MEASURED.metered, other],
        cycles=[TracedCycles(AGENT, 300.0, ago(60), None), TracedCycles(other.agent, 300.0, ago(1), None)],
    )
    assert not verdict(trace).startswith("stops at: polled")


def test_samples_in_a_spool_wait_and_dropped_ones_are_lost():
    waiting = state(
        spool=SpoolState(7, 100, 1000, 1800.0), dependencies=(DependencyState("bus", False, "connecting to rabbit1"),)
    )
    assert verdict(daemons=[waiting]) == (
        f"stops at: spooled — 7 messages waiting in the spool of {AGENT}, from 2026-11-27 11:30:00 UTC on: bus: connecting to rabbit1"
    )
    assert "dropped samples" in verdict(MEASURED._replace(failures=[failed("spool dropped", "the spool is full")]))


def test_agents_are_not_blamed_for_reports_that_no_collector_takes():
    silent = MEASURED._replace(cycles=[TracedCycles(AGENT, 300.0, ago(60), None)])
    waiting = {"meter.metering": QueueState(9, 0), "meter.reports": QueueState(1, 0)}
    text, steps = why(evidence(silent, queues=waiting))
    assert text.startswith("stops at: published — 9 messages waiting in meter.metering")
    polled = next(step for step in steps if step.name == "polled")
    assert polled.state == "unknown"
    assert polled.text == (
        f"no cycle report of {AGENT} has arrived since 2026-11-27 11:00:00 UTC: 1 message waiting in meter.reports,"
        " and no collector consumes them"
    )
    assert verdict(NOTHING, queues=waiting).startswith("stops at: published")
    consumed = {"meter.metering": QueueState(0, 1), "meter.reports": QueueState(1, 1)}
    assert verdict(silent, queues=consumed).startswith(f"stops at: polled — {AGENT} is silent")


def test_messages_that_no_collector_takes():
    assert verdict(queues={"meter.metering": QueueState(9, 0)}).startswith(
        "stops at: published — 9 messages waiting in"
    )
    assert verdict(queues={"meter.metering": None}).startswith("stops at: published — there is no queue")
    assert not verdict(queues={"meter.metering": QueueState(9, 1)}).startswith("stops at: published")


def test_a_dead_letter_is_named_with_its_id_or_at_least_its_hour():
    text, steps = why(evidence(letters=[letter()]))
    assert text == "stops at: accepted — dead letter 0123456789abcdef of 2026-11-27T11:58:00 (unverified): no key"
    assert next(step.advice for step in steps if step.name == "accepted").startswith("meter-dead-letters show 01234567")
    rejected = MEASURED._replace(rejected=[TracedRejection(ago(60), "invalid", "p", 3)])
    assert "3 samples of the hour of 2026-11-27 11:00:00 UTC were rejected as invalid" in verdict(rejected)


def test_dead_letters_that_were_not_searched_leave_it_open():
    text, steps = why(evidence(letters=[], letters_left=7))
    assert text.startswith("unknown")
    assert next(step.state for step in steps if step.name == "accepted") == "unknown"


def test_what_expired_or_was_voided_had_arrived():
    assert "have expired by retention" in verdict(MEASURED._replace(cutoff=ago(-60)))
    voided = MEASURED._replace(voided=TracedVoiding(ago(3), "alice", "counted twice"))
    assert verdict(voided).endswith("voided by alice: counted twice")


def test_nothing_that_explains_it_is_unknown_and_not_an_explanation():
    assert verdict().startswith("unknown — no step explains it; stored: no newer sample is stored")


def test_what_could_not_be_looked_at_is_said():
    text, steps = why(
        evidence(None, queues=None, letters=None, not_looked_at={"database": "refused", "broker": "refused"})
    )
    assert text.startswith("unknown — ")
    assert {step.name for step in steps if step.state == "not checked"} == {
        "polled", "spooled", "published", "accepted", "kept", "stored"
    }  # fmt: skip


def test_a_meter_of_notifications_is_not_called_unpolled():
    text = verdict(NOTHING, meter="instance:m1.tiny")
    assert text.startswith("unknown")
    heard = NOTHING._replace(newest=[TracedSample("p", 0.0, ago(6000), ago(6000), 1.0)])
    assert verdict(heard, meter="instance:m1.tiny").startswith("arrives")


def test_what_a_project_may_see():
    fresh = MEASURED._replace(newest=[TracedSample("p", 300.0, ago(3), ago(2), 1.0)])
    assert verdict(fresh, project="p").startswith("arrives")
    assert verdict(fresh, project="q").startswith("stops at: visible — the samples belong to p")
    moved = fresh._replace(newest=[*fresh.newest, TracedSample("q", 300.0, ago(600), ago(600), 1.0)])
    assert "the project q sees samples until 2026-11-27 02:00:00 UTC" in verdict(moved, project="q")


def test_samples_without_a_project_are_for_administrators():
    _, steps = why(evidence(MEASURED._replace(newest=[TracedSample(None, 300.0, ago(3), ago(2), 1.0)])))
    assert steps[-1].text == "to administrators only: the samples have no project"


def test_the_result_is_text_or_json_without_control_characters():
    text, steps = why(evidence(letters=[letter(**{"meter-reason": "\x1b[2Jpassword=hunter2"})]))
    for shown in (steps_as_text(text, steps), steps_as_json(text, steps)):
        assert "\x1b" not in shown
        assert "hunter2" not in shown
    assert json.loads(steps_as_json(text, steps))["verdict"].startswith("stops at: accepted")


def test_a_dead_letter_is_found_in_each_form_of_json():
    inner = json.dumps({"resource_id": "röhre", "counter_name": "cpu"})
    wrapped = json.dumps({"oslo.message": inner}).encode()
    assert names_both(letter(wrapped), "röhre", "cpu")
    assert names_both(letter(inner.encode()), "röhre", "cpu")
    assert names_both(letter(b'{"resource_id": "r1"}', **{"meter-meter": "cpu"}), "r1", "cpu")
    assert not names_both(letter(wrapped), "röh", "cpu")


@pytest.mark.parametrize("name", ["--as-project", "--project", "-p"])
def test_the_command_line_of_why(name):
    options = Options()
    options.parseOptions(["why", "r", "cpu", "--at", "2026-11-27T12:00", name, "p", "--json"])
    chosen = options.subOptions
    assert (chosen["resource"], chosen["meter"], chosen["at"]) == ("r", "cpu", NOON)
    assert (chosen["as-project"], chosen["json"]) == ("p", 1)


@pytest.mark.parametrize("arguments", [["r"], ["r", "cpu", "x"], ["r", "cpu", "--at", "noon"], ["r", "cpu", "--never"]])
def test_a_wrong_command_line_of_why_is_a_usage_error(arguments):
    with pytest.raises(usage.UsageError):
        Options().parseOptions(["why", *arguments])


def test_options_may_follow_the_arguments():
    assert options_first(["r", "m", "--at", "now", "--json"], ("--at",)) == ["--at", "now", "--json", "--", "r", "m"]
    assert options_first(["--", "-r", "m"], ()) == ["--", "-r", "m"]
