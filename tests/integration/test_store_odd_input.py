"""Odd input, all of it at once, from the body of a delivery to the rows of PostgreSQL: each has its outcome, and no other's."""

from __future__ import annotations

import json
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from zope.interface import implementer

from meter.bus.dead_letters import DeadLetterPublisher
from meter.ceilometer_signature import signature
from meter.collector.samples import SampleConsumer
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.metrics import metrics_registry
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.message import CAST_METHOD
from meter.message import metering_messages
from meter.message import open_envelope
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.maintenance.maintenance import Retention
from tests.integration.test_store_rollups import running
from tests.signed import stored_message
from tests.store_messages import KEYS
from tests.store_messages import as_written
from tests.store_messages import message

NOW = datetime.now(UTC)
UNSQUEEZABLE = "".join(chr(0x10000 + (n * 7919) % 0xFFFF) for n in range(512))


@implementer(IPublisher)
class DeadQueue:
    def __init__(self):
        self.reasons = {}

    async def publish(self, publication):
        for fields in metering_messages(open_envelope(publication.body)):
            self.reasons[fields["message_id"]] = publication.headers["meter-reason"]


def odd(**changes):
    fields = {**message(at=NOW).fields, "message_id": str(uuid.uuid4()), **changes}
    fields.pop("message_signature", None)
    try:
        return {**fields, "message_signature": signature(fields, b"a secret of the tests")}
    except ValueError:  # nobody can sign what is not JSON
        return {**fields, "message_signature": "0" * 64}


def at(text):
    return {"timestamp": text}


STORED = {
    "an integer beyond 64 bits": {"counter_volume": 2**70},
    "a float of 17 digits": {"counter_volume": 0.30000000000000004},
    "the largest volume": {"counter_volume": -1e30},
    "the smallest volume": {"counter_volume": 1e-100},
    "integers of any size in metadata": {"resource_metadata": {"n": 2**64, "m": -(10**400)}},
    "the last moment": at("9999-12-31T23:59:59.999999"),
    "250 kB of metadata": {"resource_metadata": {"text": "x" * 250_000}},
    "9 000 keys": {"resource_metadata": {f"name {n}": n for n in range(9_000)}},
    "a backslash before u0000": {"resource_metadata": {"path": "C:\\u0000"}},
    "characters beyond 16 bits": {"resource_id": "\U0001f4a1\uffff", "resource_metadata": {"\U0010ffff": "\ufeff"}},
    "names of 512 characters": {"counter_name": "n" * 512, "resource_id": "r" * 512},
    "an id that is no UUID": {"message_id": "sample 7"},
}

REFUSED = {
    "1 MB of metadata": ({"resource_metadata": {"text": "x" * 2**20}}, "the limit is 262144"),
    "30 000 keys": ({"resource_metadata": {f"name {n}": n for n in range(30_000)}}, "more than 20000 names and values"),
    "a field that nobody knows": ({"note": {"a": [1, 1.0, None]}}, "'note' is not a member of Ceilometer's messages"),
    "NUL in a name": ({"resource_id": "r\0"}, "NUL"),
    "NUL in metadata": ({"resource_metadata": {"a": ["\0"]}}, "NUL"),
    "NUL in a name of metadata": ({"resource_metadata": {"\0": 1}}, "NUL"),
    "half a surrogate pair": ({"user_id": "\ud800"}, "cannot be signed"),
    "half a surrogate pair in metadata": ({"resource_metadata": {"a": "\udfff"}}, "cannot be signed"),
    "NaN": ({"counter_volume": float("nan")}, "finite number"),
    "an infinity": ({"counter_volume": float("-inf")}, "finite number"),
    "an integer beyond every float": ({"counter_volume": 10**400}, "finite number"),
    "the largest float": ({"counter_volume": 1.7976931348623157e308}, "finite number: 0, or from 1e-100 to 1e+30"),
    "the smallest float": ({"counter_volume": 5e-324}, "finite number: 0, or from 1e-100 to 1e+30"),
    "NaN in metadata": ({"resource_metadata": {"a": float("nan")}}, "cannot be signed"),
    "year 0": (at("0000-12-31T00:00:00"), "timestamp must be a time"),
    "year 10000": (at("10000-01-01T00:00:00"), "timestamp must be a time"),
    "a name of 10 kB": ({"counter_name": "n" * 10_000}, "at most 512 characters"),
    "a name that no index can take": ({"counter_name": UNSQUEEZABLE, "counter_unit": UNSQUEEZABLE}, "index row"),
    "older than the retention": (at((NOW - timedelta(days=60)).replace(tzinfo=None).isoformat()), "retention"),
}


@pytest_twisted.ensureDeferred
async def test_odd_message_is_stored_exactly_or_dead_lettered_with_its_reason_and_the_others_are_stored(postgresql):
    dsn = postgresql.dsn_with_schema()
    stored = {name: odd(**changes) for name, changes in STORED.items()}
    refused = {name: (odd(**changes), reason) for name, (changes, reason) in REFUSED.items()}
    neighbours = [odd() for _ in refused]
    async with running(dsn, retention=Retention(days=30)) as store:
        dead = DeadQueue()
        intake = SampleConsumer(
            store,
            KEYS,
            DeadLetterPublisher(dead, reactor),
            reactor,
            batch_samples=1000,
            batch_seconds=0.05,
            metrics=CollectingMetrics(metrics_registry("test")),
        )
        await store.maintenance.run()
        odd_ones = [each for each, _ in refused.values()]
        bodies = [_body(list(pair)) for pair in zip(neighbours, odd_ones, strict=True)]
        bodies.append(_body(list(stored.values())))
        deliveries = [Delivery(body=body, exchange="metering", routing_key="metering.cpu") for body in bodies]
        await gatherResults([Deferred.fromCoroutine(intake.receive(each)) for each in deliveries], consumeErrors=True)

        for each in neighbours:
            assert await stored_message(store, each["message_id"]) == each
        for name, each in stored.items():
            answer = await stored_message(store, each["message_id"])
            assert answer is not None, (name, dead.reasons.get(each["message_id"]))
            assert as_written(answer) == as_written(each), name
        assert [name for name, (each, _) in refused.items() if each["message_id"] not in dead.reasons] == []
        assert dead.reasons.keys() == {each["message_id"] for each, _ in refused.values()}
        for name, (each, reason) in refused.items():
            assert reason in dead.reasons[each["message_id"]], name


def _body(entries):
    """Return a cast as Python's own ``json`` writes it, which also writes what is not JSON, such as NaN."""
    return json.dumps({"method": CAST_METHOD, "args": {"data": entries}}).encode()


@pytest_twisted.ensureDeferred
async def test_sample_of_the_first_possible_day_is_stored_without_retention(postgresql):
    async with running(postgresql.dsn_with_schema()) as store:
        first = message(at=datetime(1, 1, 1, tzinfo=UTC))
        assert (await store.write([first])).stored == 1
        assert await stored_message(store, first.message_id) == first.fields


@pytest_twisted.ensureDeferred
async def test_resource_that_changes_project_belongs_to_each_project_for_its_time(postgresql):
    async with running(postgresql.dsn_with_schema()) as store:
        before, after = message(at=NOW - timedelta(hours=1), project_id="old"), message(at=NOW, project_id="new")
        await store.write([before, after])

        [resource] = await store.resources(SampleFilter(), 10)
        assert resource.project_id == "new"
        for project, sent in (("old", before), ("new", after)):
            filter = SampleFilter(equals={"project_id": project})
            assert [each.message_id for each in await store.samples(filter, 10)] == [sent.message_id]
            assert [row.values["count"] for row in await store.statistics(StatisticsQuery(filter=filter))] == [1]


@pytest_twisted.ensureDeferred
async def test_meter_name_with_two_units_or_types_is_two_meters(postgresql):
    async with running(postgresql.dsn_with_schema()) as store:
        await store.write(
            [
                message("ram", 1, at=NOW, unit="MB"),
                message("ram", 2**20, at=NOW, unit="B"),
                message("ram", 3, at=NOW, unit="MB", type="delta"),
            ]
        )

        found = {(each.name, each.type, each.unit) for each in await store.meters(SampleFilter(), 10, True)}
        assert found == {("ram", "gauge", "MB"), ("ram", "gauge", "B"), ("ram", "delta", "MB")}
        rows = await store.statistics(StatisticsQuery(filter=SampleFilter(equals={"meter": "ram"})))
        assert {row.unit: row.values["sum"] for row in rows} == {"MB": 4, "B": 2**20}
