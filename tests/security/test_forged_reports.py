"""Forged, replayed, reordered, foreign and future reports change nothing: RabbitMQ, two collectors and PostgreSQL.

What each of them is refused for is tested in tests/unit/collector/test_reports.py.
"""

from __future__ import annotations

import random
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.reports import REPORTS_QUEUE
from meter.collector.reports import ReportConsumer
from meter.cycle_report import SeriesGroup
from meter.daemon.report_metrics import ReportMetrics
from meter.daemon.services import wall_seconds
from meter.interfaces import Binding
from meter.interfaces import Subscription
from meter.report import report_publication
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.testing import MemoryStore
from tests.integration.test_store_rollups import running
from tests.ledger_tables import agent_life
from tests.ledger_tables import beat
from tests.ledger_tables import cycle
from tests.ledger_tables import ledger_tables
from tests.ledger_tables import poll
from tests.waiting import published
from tests.waiting import until

OURS = SigningKey("ours", b"ours", agents=("meter-compute@h*", "meter-api@h1"))
EDGE = SigningKey("edge", b"edge", agents=("meter-compute@edge-*",))
STRANGER = SigningKey("ours", b"guessed")
BOOT, OTHER = (uuid.UUID(int=n, version=4) for n in (1, 2))
GROUPS = tuple(SeriesGroup((meter,), (resource,), "p") for meter in "ab" for resource in "rs")


@pytest_twisted.ensureDeferred
async def test_bad_reports_are_dead_lettered_and_good_ones_applied_in_order_and_once(postgresql, rabbitmq, amqp_bus):
    dsn, bus, rng = postgresql.dsn_with_schema(), amqp_bus(), random.Random(3)
    now = datetime.fromtimestamp(wall_seconds(reactor), UTC).replace(microsecond=0)
    start = now - timedelta(minutes=30)
    good = agent_life(BOOT, start, 25, lambda n: (tuple(rng.choices(GROUPS, k=2)), tuple(rng.choices(GROUPS, k=1))))
    reference = MemoryStore(reactor)
    for each in good:
        await reference.record_cycle_reports([each])
    forged = cycle(BOOT, 3, start + timedelta(seconds=120), poll("disk"))
    bad = [
        (report_publication("cycle", good[4].report, STRANGER), "unverified"),
        (report_publication("cycle", forged.report, OURS), "conflict"),
        (report_publication("cycle", cycle(OTHER, 1, now, poll(), host="unknown").report, OURS), "unverified"),
        (report_publication("cycle", cycle(OTHER, 1, now, poll(), host="h2").report, EDGE), "unverified"),
        (report_publication("cycle", cycle(OTHER, 1, now + timedelta(hours=2), poll()).report, OURS), "invalid"),
        (report_publication("heartbeat", beat(BOOT, 1, now).heartbeat, STRANGER), "unverified"),
    ]
    beats = [beat(BOOT, n, now) for n in (1, 2, 3)]
    heard, dead = [], []

    async def hear(delivery):
        heard.append(delivery)

    async def bury(delivery):
        dead.append((delivery.headers["meter-kind"], delivery.headers["meter-reason"]))

    async with running(dsn) as one, running(dsn) as another:
        services = [
            bus.subscribe(
                Subscription(queue=REPORTS_QUEUE, bindings=(Binding("metering", "report.#", ours=True),), prefetch=20),
                ReportConsumer(
                    store,
                    None,
                    Keyring([OURS, EDGE]),
                    DeadLetterPublisher(bus, reactor, source_queue=REPORTS_QUEUE),
                    reactor,
                    metrics=ReportMetrics(CollectorRegistry()),
                ).receive,
            )
            for store in (one, another)
        ]
        samples = Subscription(queue="samples", bindings=(Binding("metering", "metering.#", ours=True),))
        services += [bus.subscribe(samples, hear), bus.subscribe(Subscription(queue=DEAD_LETTER_QUEUE), bury)]
        for service in services:
            service.startService()
        try:
            sent = [report_publication("cycle", each.report, OURS) for each in (*good, *rng.choices(good, k=10))]
            rng.shuffle(sent)
            await gatherResults([Deferred.fromCoroutine(published(bus, each)) for each in sent])
            await until(lambda: postgresql.execute("SELECT applied FROM agent_boot", dsn) == [(25,)])
            for publication in (
                *(publication for publication, _ in bad),
                *(report_publication("heartbeat", each.heartbeat, OURS) for each in (beats[2], beats[0], beats[1])),
            ):
                await published(bus, publication)
            await until(
                lambda: (
                    len(dead) == len(bad) and postgresql.execute("SELECT sequence FROM daemon_heartbeat", dsn) == [(3,)]
                )
            )
            one.rows_of = lambda statement: postgresql.execute(statement, dsn)
            assert await ledger_tables(one) == await ledger_tables(reference)
            assert sorted(kind for kind, _ in dead) == sorted(kind for _, kind in bad)
            [kept] = await one.heartbeats()
            assert (kept.heartbeat.name, kept.heartbeat.sequence) == ("meter-api@h1", 3)
            assert [agent.name for agent in await one.agents()] == ["meter-compute@h1"]
            assert heard == []
        finally:
            await gatherResults([service.stopService() for service in services])
