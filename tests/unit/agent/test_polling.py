"""Polling cycles: what pollsters share, and that a bad pollster affects no other."""

import itertools
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.internet.task import LoopingCall
from twisted.logger import eventAsText
from zope.interface import implementer

from meter.agent.cycle import PluginContext
from meter.agent.polling import SPOOL_CHUNK_SAMPLES
from meter.agent.polling import Polling
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import exposition
from meter.daemon.metrics import metrics_registry
from meter.daemon.services import sleep
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import IDomainPollster
from meter.interfaces import Unavailable
from meter.message import read_cast
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.signing_keys import keyring

KEYS = keyring(["secret"])
NOON = 1_700_000_000


@implementer(IComputePollster)
@dataclass(frozen=True)
class Pollster:
    """Does in ``poll`` what the test says."""

    name: str
    work: object
    verdict: object = field(default_factory=Enabled)
    meters: tuple = (MeterDefinition("lamp.*", "gauge", "W"),)
    options: None = None

    def configured(self, options):
        return self

    async def enabled(self, context):
        return self.verdict

    async def poll(self, cycle):
        return await self.work(cycle)


def sample(cycle, name="lamp.power", volume=1):
    return Sample(name=name, type="gauge", unit="W", volume=volume, resource_id="lamp", timestamp=cycle.timestamp)


async def one_sample(cycle):
    return [sample(cycle)]


class Agent:
    """A polling agent on a clock of its own that keeps what it would spool."""

    def __init__(self, *pollsters, meters_off=(), providers=None, interval_of=lambda _: None):
        self.clock = Clock()
        self.clock.advance(NOON)
        self.spooled = []
        self.registry = metrics_registry("test")
        self.metrics = PollingMetrics(self.registry)
        self.context = PluginContext("meter-compute", None, self.clock, providers or {})
        self.polling = Polling(
            self.context,
            self.put,
            KEYS,
            source="here",
            timeout_seconds=10,
            batch_samples=2,
            metrics=self.metrics,
            interval_of=interval_of,
        )
        self.decisions = [
            Decision(kind=COMPUTE, name=each.name, origin="test", state="pending", plugin=each, meters_off=meters_off)
            for each in pollsters
        ]
        self.polling.pollsters = tuple(self.decisions)

    async def put(self, publications):
        self.spooled += publications

    def cycle(self):
        return Deferred.fromCoroutine(self.polling.cycle())

    def messages(self):
        found = []
        for publication in self.spooled:
            found += read_cast(publication.body, KEYS)
        return found

    def count(self, line):
        return line in exposition(self.registry).decode()


@pytest_twisted.ensureDeferred
async def test_samples_are_signed_and_spooled_in_batches_of_one_meter():
    async def work(cycle):
        return [sample(cycle, volume=n) for n in range(3)] + [sample(cycle, "lamp.heat")]

    agent = Agent(Pollster("lamp", work))
    report = await agent.cycle()

    assert (report.samples, report.meters, report.failed) == (4, 2, ())
    assert [(p.routing_key, p.headers["meter-samples"]) for p in agent.spooled] == [
        ("metering.lamp.power", 2),
        ("metering.lamp.power", 1),
        ("metering.lamp.heat", 1),
    ]
    assert [message.volume for message in agent.messages()] == [0, 1, 2, 1]
    assert {message.source for message in agent.messages()} == {"here"}
    assert {message.timestamp.timestamp() for message in agent.messages()} == {NOON}


@pytest_twisted.ensureDeferred
async def test_ids_of_a_series_differ_from_poll_to_poll_in_the_first_six_bytes_only():
    async def work(cycle):
        return [replace(sample(cycle), resource_id=f"lamp-{n}") for n in range(5)]

    agent = Agent(Pollster("lamp", work), Pollster("other", work))
    await agent.cycle()
    first = [message.message_id for message in agent.messages()]
    agent.spooled.clear()
    agent.clock.advance(300)
    await agent.cycle()
    second = [message.message_id for message in agent.messages()]

    assert len({*first, *second}) == 20
    assert [each[13:] for each in first] == [each[13:] for each in second]
    assert len({each[:13] for each in first[:5]}) == 1
    assert first[0][:13] < second[0][:13]
    assert not {each[13:30] for each in first[:5]} & {each[13:30] for each in first[5:]}


@pytest_twisted.ensureDeferred
async def test_ids_that_a_pollster_has_chosen_stay():
    async def work(cycle):
        return [replace(sample(cycle), message_id="mine"), sample(cycle)]

    agent = Agent(Pollster("lamp", work))
    await agent.cycle()

    chosen, other = [message.message_id for message in agent.messages()]
    assert chosen == "mine"
    assert len(other) == 36


@pytest_twisted.ensureDeferred
async def test_poll_may_return_a_generator():
    async def work(cycle):
        return (sample(cycle) for _ in range(2))

    assert (await Agent(Pollster("lamp", work)).cycle()).samples == 2


@pytest_twisted.ensureDeferred
async def test_poll_may_return_any_awaitable():
    pollster = Pollster("lamp", one_sample)
    object.__setattr__(pollster, "poll", lambda cycle: succeed([sample(cycle)]))

    assert (await Agent(pollster).cycle()).samples == 1


async def raises(cycle):
    raise RuntimeError("broken lamp")


async def is_away(cycle):
    raise Unavailable("the lamp does not answer")


async def returns_nothing(cycle):
    return None


async def returns_rubbish(cycle):
    return [sample(cycle), "rubbish"]


async def hangs(cycle):
    await Deferred()


async def hangs_stubbornly(cycle):
    for _ in range(100):
        try:
            await sleep(cycle.clock, 1000)
        except CancelledError:
            continue


@pytest.mark.parametrize(
    ("work", "outcome"),
    [(raises, "error"), (is_away, "unavailable"), (returns_nothing, "error"), (returns_rubbish, "error"), (hangs, "timeout"), (hangs_stubbornly, "timeout")],
)  # fmt: skip
def test_bad_pollster_affects_no_other(work, outcome):
    agent = Agent(Pollster("bad", work), Pollster("lamp", one_sample))

    cycle = agent.cycle()
    agent.clock.advance(10)

    assert cycle.result.failed == ("bad",)
    assert len(agent.messages()) == (2 if work is returns_rubbish else 1)  # what it made before is valid
    assert agent.count(f'meter_polls_total{{outcome="{outcome}",pollster="bad"}} 1.0')
    assert agent.count('meter_polls_total{outcome="ok",pollster="lamp"} 1.0')


def test_other_limits_apply_from_the_next_poll_on():
    agent = Agent(Pollster("bad", hangs))
    agent.polling.set_limits(timeout_seconds=3, batch_samples=1)
    cycle = Deferred.fromCoroutine(agent.polling.cycle())
    agent.clock.advance(2.9)
    assert not cycle.called
    agent.clock.advance(0.2)
    assert cycle.called


def test_pollster_that_still_hangs_is_not_polled_again():
    asked = []

    async def work(cycle):
        asked.append(1)
        await hangs_stubbornly(cycle)

    agent = Agent(Pollster("bad", work))
    for _ in range(3):
        agent.cycle()
        agent.clock.advance(10)

    assert len(asked) == 1


@pytest_twisted.ensureDeferred
async def test_pollsters_share_the_cycle_cache():
    calls = []

    async def work(cycle):
        async def listing():
            calls.append(1)
            return [sample(cycle)]

        return await cycle.cycle_cache("listing", listing)

    agent = Agent(Pollster("a", work), Pollster("b", work))
    assert (await agent.cycle()).samples == 2
    assert (await agent.cycle()).samples == 2
    assert len(calls) == 2  # one a cycle


def test_failure_is_shared_too_and_a_timeout_does_not_affect_others():
    listing = Deferred()

    async def patient(cycle):
        return await cycle.cycle_cache("listing", lambda: listing)

    async def impatient(cycle):
        waiting = Deferred.fromCoroutine(cycle.cycle_cache("listing", lambda: listing))
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        return []

    agent = Agent(Pollster("patient", patient), Pollster("impatient", impatient), Pollster("other", patient))
    cycle = agent.cycle()
    listing.errback(Unavailable("away"))

    assert cycle.result.failed == ("patient", "other")


@pytest_twisted.ensureDeferred
async def test_disabled_meters_are_not_polled():
    async def work(cycle):
        return [sample(cycle), sample(cycle, "lamp.heat")]

    agent = Agent(Pollster("lamp", work), meters_off=("*.heat",))
    await agent.cycle()

    assert [message.name for message in agent.messages()] == ["lamp.power"]


@pytest_twisted.ensureDeferred
async def test_poll_now_returns_samples_without_spooling_them():
    agent = Agent(Pollster("lamp", one_sample))

    assert [each.name for each in await agent.polling.poll_now("lamp")] == ["lamp.power"]
    assert agent.spooled == []
    with pytest.raises(LookupError, match="active are: lamp"):
        await agent.polling.poll_now("lampe")


def test_cycle_ends_only_when_its_samples_are_on_disk():
    agent, disk, reports = Agent(Pollster("lamp", one_sample)), Deferred(), []
    agent.polling._put = lambda publications: disk
    agent.polling._after_cycle = reports.append
    cycle = agent.cycle()

    assert not cycle.called
    assert reports == []
    disk.callback(None)
    assert cycle.called
    assert len(reports) == 1


@pytest_twisted.ensureDeferred
async def test_samples_that_cannot_be_written_are_logged_with_their_time_range(logged_errors):
    class FullDisk(Agent):
        async def put(self, publications):
            raise Unavailable("the disk is full")

    report = await FullDisk(Pollster("lamp", one_sample)).cycle()

    assert (report.samples, report.meters) == (0, 0)
    [event] = logged_errors.flush()
    noon = datetime.fromtimestamp(NOON, UTC).isoformat()
    assert eventAsText(event, includeTimestamp=False, includeSystem=False) == (
        f"LOST 1 samples, measured from {noon} to {noon}: the disk is full"
    )


@implementer(IDomainPollster)
class DomainPollster(Pollster):
    pass


@pytest_twisted.ensureDeferred
async def test_poll_off_schedule_runs_only_pollsters_of_an_interface_with_other_providers():
    async def work(cycle):
        return [sample(cycle, volume=cycle.provider("thing"))]

    agent = Agent(DomainPollster("domains", work), Pollster("lamp", work), providers={"thing": 1})
    report = await agent.polling.poll_off_schedule(IDomainPollster, {"thing": 2})

    assert report.samples == 1
    assert [message.volume for message in agent.messages()] == [2]


def test_cycles_and_polls_off_schedule_wait_for_each_other():
    waiting, seen = Deferred(), []

    async def work(cycle):
        seen.append("begins")
        await waiting
        seen.append("ends")
        return [sample(cycle)]

    agent = Agent(DomainPollster("domains", work))
    agent.cycle()
    between = Deferred.fromCoroutine(agent.polling.poll_off_schedule(IDomainPollster, {}))

    assert seen == ["begins"]
    waiting.callback(None)
    assert seen == ["begins", "ends", "begins", "ends"]
    assert between.called


@pytest_twisted.ensureDeferred
async def test_poll_now_is_a_trial():
    async def work(cycle):
        return [sample(cycle, volume=int(cycle.trial))]

    agent = Agent(Pollster("lamp", work))
    [shown] = await agent.polling.poll_now("lamp")
    await agent.cycle()

    assert shown.volume == 1
    assert [message.volume for message in agent.messages()] == [0]


@pytest_twisted.ensureDeferred
async def test_many_samples_are_written_in_chunks():
    async def work(cycle):
        return [sample(cycle, volume=n) for n in range(SPOOL_CHUNK_SAMPLES + 1)]

    agent = Agent(Pollster("lamp", work))
    parts = []

    async def put(publications):
        parts.append(sum(publication.headers["meter-samples"] for publication in publications))

    agent.polling._put = put

    assert (await agent.cycle()).samples == SPOOL_CHUNK_SAMPLES + 1
    assert parts == [SPOOL_CHUNK_SAMPLES, 1]


@pytest_twisted.ensureDeferred
async def test_generator_is_consumed_one_chunk_at_a_time():
    made = []

    async def work(cycle):
        return (made.append(n) or sample(cycle, volume=n) for n in range(2 * SPOOL_CHUNK_SAMPLES))

    agent = Agent(Pollster("lamp", work))
    when_written = []

    async def put(publications):
        when_written.append(len(made))

    agent.polling._put = put
    await agent.cycle()

    assert when_written == [SPOOL_CHUNK_SAMPLES, 2 * SPOOL_CHUNK_SAMPLES]


def test_samples_are_on_disk_while_another_pollster_still_hangs():
    agent = Agent(Pollster("bad", hangs), Pollster("lamp", one_sample))
    cycle = agent.cycle()

    assert len(agent.messages()) == 1
    assert not cycle.called
    agent.clock.advance(10)
    assert cycle.called


def slowly(clock, samples):
    """Take a millisecond for each."""
    for each in samples:
        clock.rightNow += 0.001
        yield each


def test_reactor_runs_while_a_generator_makes_samples():
    made = []

    async def work(cycle):
        return slowly(agent.clock, (made.append(n) or sample(cycle, volume=n) for n in range(1000)))

    agent = Agent(Pollster("lamp", work))
    made_at_beats = []
    heart = LoopingCall(lambda: made_at_beats.append(len(made)))
    heart.clock = agent.clock
    heart.start(0.01)
    cycle = agent.cycle()
    while not cycle.called:
        agent.clock.advance(0)
    heart.stop()

    assert cycle.result.samples == 1000
    assert max(later - earlier for earlier, later in itertools.pairwise(made_at_beats)) < 20


def test_endless_generator_times_out_and_its_samples_are_spooled():
    async def work(cycle):
        return slowly(agent.clock, (sample(cycle) for _ in itertools.count()))

    agent = Agent(Pollster("lamp", work))
    agent.polling._batch = 100
    cycle = agent.cycle()
    while not cycle.called:
        agent.clock.advance(0)

    assert cycle.result.failed == ("lamp",)
    assert agent.count('meter_polls_total{outcome="timeout",pollster="lamp"} 1.0')
    spooled = sum(each.headers["meter-samples"] for each in agent.spooled)
    assert cycle.result.samples == spooled >= 4 * SPOOL_CHUNK_SAMPLES


@pytest_twisted.ensureDeferred
async def test_generator_that_fails_affects_only_its_pollster():
    async def work(cycle):
        def samples():
            yield sample(cycle)
            raise RuntimeError("broken lamp")

        return samples()

    agent = Agent(Pollster("bad", work), Pollster("lamp", one_sample))
    report = await agent.cycle()

    assert (report.samples, report.failed) == (2, ("bad",))
    assert agent.count('meter_polls_total{outcome="error",pollster="bad"} 1.0')


@pytest.mark.parametrize("failure", [RuntimeError("broken lamp"), Unavailable("no answer"), "no sample"])
@pytest_twisted.ensureDeferred
async def test_samples_that_were_made_before_a_generator_fails_are_spooled(failure):
    async def work(cycle):
        def samples():
            for n in range(SPOOL_CHUNK_SAMPLES + 3):
                yield sample(cycle, volume=n)
            if isinstance(failure, str):
                yield failure
            raise failure

        return samples()

    agent = Agent(Pollster("bad", work))
    report = await agent.cycle()

    assert [message.volume for message in agent.messages()] == list(range(SPOOL_CHUNK_SAMPLES + 3))
    assert (report.samples, report.failed) == (SPOOL_CHUNK_SAMPLES + 3, ("bad",))


@pytest_twisted.ensureDeferred
async def test_poll_on_demand_raises_what_ends_its_samples():
    async def work(cycle):
        def samples():
            yield sample(cycle)
            raise RuntimeError("broken lamp")

        return samples()

    with pytest.raises(RuntimeError, match="broken lamp"):
        await Agent(Pollster("bad", work)).polling.poll_now("bad")


@pytest_twisted.ensureDeferred
async def test_samples_carry_the_interval_of_their_pollster():
    agent = Agent(
        Pollster("lamp", one_sample), Pollster("stove", one_sample), interval_of={"lamp": 300.0, "stove": 0.5}.get
    )
    await agent.cycle()
    await agent.polling.cycle([agent.decisions[0]])
    assert [each.metadata for each in agent.messages()] == [
        {"_meter": {"interval": 300}},
        {"_meter": {"interval": 0.5}},
        {"_meter": {"interval": 300}},
    ]
