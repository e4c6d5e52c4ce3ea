"""Reports are verified, checked and stored; what is bad is dead-lettered with a kind and a reason, and changes nothing."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.reports import REPORTS_AT_ONCE
from meter.collector.reports import ReportConsumer
from meter.cycle_report import SeriesGroup
from meter.cycle_report import SucceededListing
from meter.daemon.report_metrics import ReportMetrics
from meter.identity_report import IdentityReport
from meter.interfaces import Delivery
from meter.interfaces import Unavailable
from meter.report import report_publication
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.testing import MemoryStore
from tests.ledger_tables import beat
from tests.ledger_tables import cycle
from tests.ledger_tables import poll

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
BOOT = uuid.UUID("11111111-1111-4111-8111-111111111111")
OTHER = uuid.UUID("22222222-2222-4222-8222-222222222222")
KEY = SigningKey("main", b"a shared secret")
EDGE = SigningKey("edge", b"another secret", agents=("meter-compute@edge-*",))
OLD = SigningKey("old", b"an old secret", not_after=NOON - timedelta(days=1))


class Publisher:
    """Keeps what is published."""

    def __init__(self):
        self.published = []

    async def publish(self, publication):
        self.published.append(publication)


class Identities:
    """Keeps identity reports."""

    def __init__(self):
        self.reports = []

    async def record_identities(self, report):
        self.reports.append(report)


class Collector:
    """A report consumer with a store in memory."""

    def __init__(self, **options):
        self.clock = Clock()
        self.clock.advance(NOON.timestamp())
        self.store = MemoryStore(self.clock)
        self.identities = Identities()
        self.bus = Publisher()
        self.registry = CollectorRegistry()
        self.consumer = ReportConsumer(
            self.store,
            self.identities,
            Keyring([KEY, EDGE, OLD]),
            DeadLetterPublisher(self.bus, self.clock),
            self.clock,
            metrics=ReportMetrics(self.registry),
            **options,
        )

    def receive(self, *bodies):
        """Deliver bodies at the same time, and let a batch be written."""
        received = [
            Deferred.fromCoroutine(
                self.consumer.receive(Delivery(body=body, exchange="metering", routing_key="report.cycle"))
            )
            for body in bodies
        ]
        self.clock.advance(1)
        return received

    @property
    def dead(self):
        """The kind and reason of each dead letter."""
        return [(each.headers["meter-kind"], each.headers["meter-reason"]) for each in self.bus.published]

    @property
    def unchanged(self):
        """Whether no report had an effect."""
        return not self.store.agent_names and not self.store.cycle_runs and not self.identities.reports

    def counted(self, kind, outcome):
        return self.registry.get_sample_value("meter_reports_total", {"kind": kind, "outcome": outcome})


def signed(received, key=KEY, kind="cycle"):
    """Return the body of a report."""
    return report_publication(kind, getattr(received, "report", received), key).body


def altered(body, change):
    """Return a body whose cast was changed after it was signed."""
    envelope = json.loads(body)
    cast = json.loads(envelope["oslo.message"])
    change(cast)
    envelope["oslo.message"] = json.dumps(cast)
    return json.dumps(envelope).encode()


FIRST = cycle(BOOT, 1, NOON, poll(whole=True, series=(SeriesGroup(("cpu",), ("r1",)),)))


def test_cycle_report_is_stored_and_counted():
    collector = Collector()

    [received] = collector.receive(signed(FIRST))

    assert received.result is None
    assert collector.dead == []
    assert [run.cycles for run in collector.store.cycle_runs] == [1]
    assert collector.counted("cycle", "applied") == 1


def test_reports_that_arrive_together_are_stored_together():
    collector = Collector()
    calls = []
    record = collector.store.record_cycle_reports

    async def counting(reports):
        calls.append(len(reports))
        return await record(reports)

    collector.store.record_cycle_reports = counting
    collector.consumer.__init__(
        collector.store,
        collector.identities,
        Keyring([KEY]),
        DeadLetterPublisher(collector.bus, collector.clock),
        collector.clock,
        metrics=ReportMetrics(CollectorRegistry()),
    )
    bodies = [signed(cycle(BOOT, 1, NOON, poll(), host=f"h{n}")) for n in range(REPORTS_AT_ONCE + 5)]

    received = collector.receive(*bodies)

    assert calls == [REPORTS_AT_ONCE, 5]
    assert all(each.called for each in received)


def test_repeated_report_is_acknowledged_and_one_with_its_number_is_dead_lettered():
    collector = Collector()
    collector.receive(signed(FIRST))

    collector.receive(signed(FIRST), signed(cycle(BOOT, 1, NOON, poll("disk"))))

    assert [kind for kind, _ in collector.dead] == ["conflict"]
    assert "has the number 1" in collector.dead[0][1]
    assert (collector.counted("cycle", "repeated"), collector.counted("cycle", "conflict")) == (1, 1)
    assert [run.pollsters for run in collector.store.cycle_runs] == [("cpu",)]


@pytest.mark.parametrize(
    ("key", "predecessor", "ends"),
    [(KEY, "h1", True), (EDGE, "edge-1", True), (EDGE, "h1", False)],
    ids=["any agent", "an agent of the key", "another agent"],
)
def test_list_succeeds_those_of_agents_alone_for_which_its_key_may_report(key, predecessor, ends):
    collector = Collector()
    before = SucceededListing(f"meter-compute@{predecessor}", "2026-11-27T11:59:00")
    series = (SeriesGroup(("cpu",), ("r1",)),)
    collector.receive(
        signed(cycle(BOOT, 1, NOON - timedelta(minutes=1), poll(whole=True, series=series), host=predecessor))
    )
    new = cycle(OTHER, 1, NOON, poll(whole=True, succeeds=before), host="edge-2")

    collector.receive(signed(new, key))

    assert collector.dead == []
    assert [row.ended for row in collector.store.metered_resources] == ["gone" if ends else ""]
    assert {agent.name for agent in collector.store._agents.values()} >= {"meter-compute@edge-2"}
    assert collector.counted("cycle", "applied") == 2


@pytest.mark.parametrize(
    ("agent", "due", "why"),
    [
        ("meter-central@h1", "2026-11-27T11:59:00", "which is another daemon"),
        ("meter-compute@", "2026-11-27T11:59:00", "host"),
        ("h1", "2026-11-27T11:59:00", "another daemon|host"),
        ("meter-compute@h1", "noon", "due"),
        ("meter-compute@h1", "2026-11-27T11:59:00+01:00", "must be in UTC"),
    ],
)
def test_report_that_succeeds_nonsense_is_dead_lettered(agent, due, why):
    collector = Collector()

    collector.receive(signed(cycle(BOOT, 1, NOON, poll(whole=True, succeeds=SucceededListing(agent, due)), host="h2")))

    [(kind, reason)] = collector.dead
    assert kind == "invalid"
    assert re.search(why, reason)
    assert collector.unchanged


def test_heartbeats_and_names_go_to_their_methods():
    collector = Collector()
    report = IdentityReport(origin="file", message_id="1", at="2026-11-27T12:00:00", names=())

    collector.receive(signed(beat(BOOT, 1).heartbeat, kind="heartbeat"), signed(report, kind="identities"))

    assert [each.message_id for each in collector.identities.reports] == ["1"]
    [kept] = Deferred.fromCoroutine(collector.store.heartbeats()).result
    assert kept.heartbeat.name == "meter-api@h1"


def test_delivery_is_requeued_while_the_store_is_unavailable():
    collector = Collector()
    collector.store.unavailable = "no database"

    [received] = collector.receive(signed(FIRST))

    assert received.result.check(Unavailable)
    received.addErrback(lambda _: None)
    assert collector.dead == []


def replaced(**changes):
    """Return the signed body of the first report with other values."""
    return signed(msgspec.structs.replace(FIRST.report, **changes))


BAD_POLL = poll(samples=-1)
LONG = "r" * 1001
TWICE = (poll(), poll())


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"\xff", "undecodable", "JSON"),
        (b"{}", "undecodable", "not a report"),
        (signed(FIRST, SigningKey("main", b"forged")), "unverified", "matches no key"),
        (signed(FIRST, EDGE), "unverified", "key edge may not report for the agent meter-compute@h1"),
        (signed(FIRST, OLD), "unverified", "key old does not cover"),
        (altered(signed(FIRST), lambda cast: cast.pop("_meter_report_signature")), "unverified", "not signed"),
        (
            altered(signed(FIRST), lambda cast: cast["args"]["report"].update(host="h2")),
            "unverified",
            "matches no key",
        ),
        (replaced(host="h2"), "invalid", "the name must be daemon@host, meter-compute@h2"),
        (replaced(due="2026-11-27T13:00:01"), "invalid", "due is 3601 s in the future"),
        (replaced(due="2026-11-27T12:00:00+01:00"), "invalid", "due must be in UTC"),
        (replaced(due="soon"), "invalid", "due must be a time like"),
        (replaced(due="2025-11-20T12:00:00"), "invalid", "due is before 2025-11-27"),
        (replaced(sequence=0), "invalid", "sequence must be from 1"),
        (replaced(sequence=2**63), "invalid", "sequence must be from 1"),
        (replaced(boot="not a boot"), "invalid", "boot must be a UUID"),
        (replaced(polls=(BAD_POLL,)), "invalid", "samples must be from 0"),
        (replaced(polls=TWICE), "invalid", "a pollster is reported twice"),
        (replaced(polls=(poll(interval=float(0)),)), "invalid", "interval_seconds must be from"),
        (replaced(polls=(poll(error="a\0b"),)), "invalid", "NUL"),
        (replaced(polls=(poll(series=(SeriesGroup(("cpu",), (LONG,)),)),)), "invalid", "longer than 1000 bytes"),
        (replaced(daemon="", agent="@h1"), "invalid", "daemon must have from 1"),
        (b" " * (8 * 1024 * 1024 + 1), "too-complex", "at most 8388608 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_bad_report_is_dead_lettered_with_its_reason_and_changes_nothing(body, kind, reason):
    collector = Collector(retention_days=365.0)

    [received] = collector.receive(body)

    assert received.result is None
    [(found, why)] = collector.dead
    assert (found, reason in why) == (kind, True), why
    assert collector.unchanged


def test_key_that_may_not_report_for_a_central_agent_or_collector_reports_no_names():
    collector = Collector()
    report = IdentityReport(origin="file", message_id="1", at="2026-11-27T12:00:00", names=())

    collector.receive(signed(report, EDGE, kind="identities"))

    assert [kind for kind, _ in collector.dead] == ["unverified"]
    assert collector.unchanged


def test_report_of_one_kind_is_not_one_of_another():
    collector = Collector()
    body = altered(signed(FIRST), lambda cast: cast.update(method="record_heartbeat_report"))

    collector.receive(body)

    assert [kind for kind, _ in collector.dead] == ["unverified"]


def test_large_report_is_opened_in_a_thread():
    ran = []

    async def off_reactor(function):
        ran.append(function)
        return function()

    resources = tuple(f"{n:036}" for n in range(20_000))
    collector = Collector(off_reactor=off_reactor)
    large = cycle(BOOT, 1, NOON, poll(whole=True, series=(SeriesGroup(("cpu",), resources),)))

    collector.receive(signed(large), signed(cycle(BOOT, 1, NOON, poll(), host="h2")))

    assert len(ran) == 1
    assert len(collector.store.metered_resources) == 20_000
