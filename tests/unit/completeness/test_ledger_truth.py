"""Random timelines of agents, failures, drops, restarts and migrations: the ledger's numbers are what has happened, sample by sample."""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from random import Random

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.completeness.ledger.attribution import AttributedCycle
from meter.completeness.ledger.ledger import Ledger
from meter.completeness.ledger.ledger import SeriesResult
from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import Finality
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import PollingException
from meter.completeness.ledger.ledger_source import RejectedSamples
from meter.completeness.ledger.ledger_source import SampleCounts
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.ledger_source import by_series
from meter.completeness.ledger.timeline import CycleRun
from meter.completeness.ledger.timeline import Timeline

INTERVAL = 300.0
CYCLES = 36
"""Three hours."""

BUCKETS = [TimeBucket(3600.0 * n, 3600.0 * (n + 1)) for n in range(3)]
METERS = ("cpu", "memory")
PER_CYCLE = {"poll failed": "cpu", "skipped": "cpu", "spool dropped": ""}
"""What can happen to a whole cycle, and the pollster that the exception names."""


@dataclass
class Truth:
    """What happened: fates by cycle, resource and meter; each expected sample is received or has one fate.

    ``received`` are by the hour of the cycle, ``measured`` has the times of the same samples by the hour of these times.
    """

    received: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    measured: defaultdict[tuple[str, str, str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    voided: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    fates: Counter[tuple[str, str, int, str]] = field(default_factory=Counter)


FATES = ["ok"] * 6 + ["agent not running", "poll failed", "skipped", "spool dropped"]


def history(random: Random) -> tuple[Ledger, list[list[MeteredPeriod]], SampleCounts, Truth]:
    """Two agents; each resource begins on one and may migrate to the other; single samples are lost, rejected, or domains hang."""
    # Cycles begin with each hour, or so shortly before it that the last one of an hour measures in the next hour.
    offset, delay = random.choice([(0.0, 0.0), (0.0, 120.0), (299.0, 2.0), (299.0, 120.0)])
    fates = {agent: random.choices(FATES, k=CYCLES) for agent in (1, 2)}
    agents: dict[int, AgentReports] = {}
    for agent, of_agent in fates.items():
        of_agent[0] = of_agent[-1] = "ok"  # a gap lies between two reports
        exceptions = [
            PollingException(
                PER_CYCLE[fate], INTERVAL, "", fate, "why", offset + INTERVAL * n, offset + INTERVAL * (n + 1)
            )  # type: ignore[arg-type]
            for n, fate in enumerate(of_agent)
            if fate in PER_CYCLE
        ]
        agents[agent] = AgentReports(
            f"agent {agent}", {INTERVAL: Timeline(INTERVAL, runs_of(of_agent, offset))}, exceptions
        )
    truth = Truth()
    rejected: Counter[tuple[float, str, str]] = Counter()
    resources: list[list[MeteredPeriod]] = []
    for n in range(random.randint(1, 4)):
        resource = f"r{n}"
        first = random.randint(0, CYCLES - 1)
        last = random.randint(first + 1, CYCLES)
        migrated = random.randint(first + 1, last) if random.random() < 0.5 else CYCLES + 1
        # An agent that is silent, or whose report is late, leaves its period open.
        closed = random.random() < 0.5 or migrated == last
        hosts = [1 if cycle < migrated else 2 for cycle in range(CYCLES)]
        if migrated > CYCLES:
            resources.append([period(1, resource, first, last, offset)])
        else:
            resources.append([period(1, resource, first, migrated if closed else CYCLES + 99, offset)])
        if migrated < last:
            resources[-1].append(period(2, resource, migrated, last, offset))
        hung = {cycle for cycle in range(first, last) if random.random() < 0.1 and fates[hosts[cycle]][cycle] == "ok"}
        for cycle in hung:
            start = offset + INTERVAL * cycle
            agents[hosts[cycle]].exceptions.append(
                PollingException("cpu", INTERVAL, resource, "domain hung", "qemu", start, start + INTERVAL)
            )
        for cycle in range(first, last):
            for meter in METERS:
                fate = fates[hosts[cycle]][cycle]
                if fate == "ok":
                    fate = (
                        "domain hung"
                        if cycle in hung
                        else random.choice(["ok"] * 8 + ["rejected", "voided", "unknown"])
                    )
                due = offset + INTERVAL * cycle
                hour, measured = int(due // 3600), int((due + delay) // 3600)
                if fate == "ok":
                    truth.received[resource, meter, "p1", hour] += 1
                    truth.measured[resource, meter, "p1", measured].append(due + delay)
                    continue
                truth.fates[resource, meter, hour, fate] += 1
                if fate == "voided":
                    truth.voided[resource, meter, "p1", hour] += 1
                if fate == "rejected":
                    rejected[3600.0 * hour, meter, resource] += 1
    refused = [RejectedSamples(start, meter, res, "p1", "kind", n) for (start, meter, res), n in rejected.items()]
    ledger = Ledger(BUCKETS, agents, by_series(refused), Finality(open_from=1e9), now=1e9)
    facts = SampleCounts(
        received={key: len(times) for key, times in truth.measured.items()},
        times={key: (times[0], times[-1]) for key, times in truth.measured.items()},
        voided=truth.voided,
    )
    return ledger, resources, facts, truth


def period(agent: int, resource: str, first: int, last: int, offset: float = 0.0) -> MeteredPeriod:
    since, until = offset + INTERVAL * first, offset + INTERVAL * last
    return MeteredPeriod(agent, "cpu", INTERVAL, resource, "p1", METERS, since, until)


def runs_of(fates: list[str], offset: float = 0.0) -> list[CycleRun]:
    """The runs that the collector stores: consecutive cycles that were reported."""
    runs: list[CycleRun] = []
    for n, fate in enumerate(fates):
        at = offset + INTERVAL * n
        if fate == "agent not running":
            continue
        if runs and runs[-1].last == at - INTERVAL:
            runs[-1] = runs[-1]._replace(last=at, cycles=runs[-1].cycles + 1)
        else:
            runs.append(CycleRun(at, at, 1, frozenset({"cpu"})))
    return runs


def causes_of(result: SeriesResult) -> Mapping[str, int]:
    found: Counter[str] = Counter(each.cause for each in result.attributed)
    for loss in result.others:
        found[loss.cause] += loss.samples
    return found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_received_and_missing_by_cause_are_what_has_happened(seed: int) -> None:
    ledger, resources, facts, truth = history(Random(seed))
    received: Counter[tuple[str, str, str, int]] = Counter()
    fates: Counter[tuple[str, str, int, str]] = Counter()
    for periods in resources:
        for result in ledger.results(periods, facts):
            assert result.expected == result.received + sum(causes_of(result).values())
            assert result.unexpected == 0
            received[result.resource, result.meter, "p1", result.bucket] += result.received
            for cause, samples in causes_of(result).items():
                fates[result.resource, result.meter, result.bucket, cause] += samples

    assert +received == +truth.received
    assert +fates == +truth.fates


def test_attributed_cycle_names_its_time() -> None:
    agents = {1: AgentReports("agent", {INTERVAL: Timeline(INTERVAL, runs_of(["ok", "agent not running", "ok"]))})}
    ledger = Ledger(BUCKETS, agents, {}, Finality(open_from=1e9), now=900)
    [result] = ledger.results(
        [period(1, "r", 0, 3)._replace(meters=("cpu",))], SampleCounts({("r", "cpu", "p1", 0): 2})
    )
    [cycle] = result.attributed
    assert isinstance(cycle, AttributedCycle)
    assert (cycle.due.at, cycle.due.until, cycle.cause) == (300, 600, "agent not running")


def test_a_failed_poll_explains_its_own_cycle_alone_although_cycles_begin_some_milliseconds_early_or_late() -> None:
    begins = [0.0, 300.0015, 600.0010, 900.0020, 1200.0005]
    failed = (1, 3)
    exceptions = [
        PollingException("cpu", INTERVAL, "", "poll failed", "error", begins[n], begins[n] + INTERVAL) for n in failed
    ]
    run = CycleRun(begins[0], begins[-1], len(begins), frozenset({"cpu"}))
    agents = {1: AgentReports("agent 1", {INTERVAL: Timeline(INTERVAL, [run])}, exceptions)}
    measured = MeteredPeriod(1, "cpu", INTERVAL, "r1", "p1", ("cpu",), 0.0, 1e9)
    ledger = Ledger(BUCKETS[:1], agents, {}, Finality(open_from=1e9), now=1201.0)

    [result] = ledger.results([measured], SampleCounts({("r1", "cpu", "p1", 0): 3}))

    assert (result.expected, result.received) == (5, 3)
    assert [round(each.due.at / INTERVAL) for each in result.attributed] == list(failed)


def test_a_cycle_that_took_place_is_not_the_one_that_was_skipped_just_after_it() -> None:
    """The first cycle after a start came just before the next one was due, which was skipped; then the agent was killed."""
    runs = [CycleRun(280.0, 280.0, 1, frozenset({"cpu"}), "a"), CycleRun(1500.0, 1500.0, 1, frozenset({"cpu"}), "b")]
    skipped = PollingException("", INTERVAL, "", "skipped", "slow", 300.0, 600.0)
    agents = {1: AgentReports("agent 1", {INTERVAL: Timeline(INTERVAL, runs)}, [skipped])}
    measured = MeteredPeriod(1, "cpu", INTERVAL, "r1", "p1", ("cpu",), 280.0, 1e9)
    ledger = Ledger(BUCKETS[:1], agents, {}, Finality(open_from=1e9), now=1501.0)

    [result] = ledger.results([measured], SampleCounts({("r1", "cpu", "p1", 0): 2}))

    assert (result.expected, result.received) == (5, 2)
    assert [(each.due.at, each.cause) for each in result.attributed] == [
        (580.0, "agent not running"),
        (880.0, "agent not running"),
        (1180.0, "agent not running"),
    ]


@pytest.mark.parametrize(
    ("unreported", "finality"),
    [
        (None, Finality(open_from=1e9)),
        ({("r1", "cpu", "p1"): [1200.0, 1500.0]}, Finality(open_from=1e9)),
        # The samples have been deleted, and their numbers stay: where they were stored is not known any more.
        ({}, Finality(open_from=1e9, expired_before={"": 1e9}, kept_hours=frozenset([0.0]))),
    ],
)
def test_an_agent_killed_between_samples_and_report_lacks_the_cycles_after_that_one(
    unreported: dict[tuple[str, str, str], list[float]] | None, finality: Finality
) -> None:
    """It was stopped after the cycle of 0 s, and killed in that of 1500 s, whose samples are stored."""
    runs = [
        CycleRun(0.0, 0.0, 1, frozenset({"cpu"}), "a", stopped=True),
        CycleRun(900.0, 1200.0, 2, frozenset({"cpu"}), "b"),
        CycleRun(2100.0, 2100.0, 1, frozenset({"cpu"}), "c"),
    ]
    agents = {1: AgentReports("agent 1", {INTERVAL: Timeline(INTERVAL, runs)})}
    measured = MeteredPeriod(1, "cpu", INTERVAL, "r1", "p1", ("cpu",), 0.0, 1e9)
    ledger = Ledger(BUCKETS[:1], agents, {}, finality, now=2101.0)

    [result] = ledger.results([measured], SampleCounts({("r1", "cpu", "p1", 0): 5}, unreported=unreported))

    assert (result.expected, result.received) == (8, 5)
    assert [each.due.at for each in result.attributed] == [300.0, 600.0, 1800.0]


def test_what_was_skipped_somewhere_does_not_take_the_place_of_a_missed_cycle() -> None:
    agents = {
        1: AgentReports("agent", {INTERVAL: Timeline(INTERVAL, runs_of(["ok", "ok", "agent not running", "ok"]))})
    }
    agents[1].exceptions += [
        PollingException("cpu", INTERVAL, "", "skipped", "missing", 0, 2 * INTERVAL + 1),
        PollingException("cpu", INTERVAL, "r", "domain hung", "domain hung", INTERVAL, 2 * INTERVAL),
    ]
    ledger = Ledger(BUCKETS, agents, {}, Finality(open_from=1e9), now=1200)
    measured = [period(1, "r", 0, 4)._replace(meters=("cpu", "memory", "perf"))]
    received = {("r", meter, "p1", 0): count for meter, count in {"cpu": 3, "memory": 2, "perf": 1}.items()}
    found = {each.meter: each.attributed for each in ledger.results(measured, SampleCounts(received))}
    assert [(each.due.at, each.cause) for each in found["cpu"]] == [(600, "agent not running")]
    assert [(each.due.at, each.cause) for each in found["memory"]] == [(300, "domain hung"), (600, "agent not running")]
    meters = [period(1, "r", 0, 2)._replace(meters=("cpu",)), period(1, "r", 2, 4)._replace(meters=("cpu", "memory"))]
    results = ledger.results(meters, SampleCounts(received))
    lost = [each for result in results if result.meter == "cpu" for each in result.attributed]
    assert [(each.due.at, each.cause) for each in lost] == [(600, "agent not running")]
    assert [each.cause for each in found["perf"]] == ["skipped", "domain hung", "agent not running"]


def test_exception_is_about_the_cycles_in_which_it_was_stated_although_they_began_late() -> None:
    """Of a run only the first and last times are known: the cycle in between was due at 300, and began at 312."""
    agents = {1: AgentReports("agent", {INTERVAL: Timeline(INTERVAL, runs_of(["ok"] * 4))})}
    agents[1].exceptions.append(PollingException("cpu", INTERVAL, "r", "domain hung", "", 312, 312 + INTERVAL))
    ledger = Ledger(BUCKETS, agents, {}, Finality(open_from=1e9), now=1200)
    measured = [period(1, "r", 0, 4)._replace(meters=("cpu",))]
    for received, causes in ((3, {"domain hung": 1}), (2, {"domain hung": 1, "unknown": 1})):
        [result] = ledger.results(measured, SampleCounts({("r", "cpu", "p1", 0): received}))
        assert causes_of(result) == causes
        assert [each.due.at for each in result.attributed] == [300]
