"""Every benchmark ends with exit code 1 with a Meter that loses something, or answers something else: ``make benchmark-faults``."""

from __future__ import annotations

import pytest

FIRST_MESSAGE_IS_LOST = """
from meter.bus.amqp import AmqpBus
whole, lost = AmqpBus.publish, []
async def publish(self, publication):
    if lost:
        await whole(self, publication)
    lost.append(publication)
AmqpBus.publish = publish
"""

# What is done to Meter, in the process of the benchmark, before it runs.
FAULTS = {
    "pages break off": (
        "dashboard",
        """
from http.client import HTTPResponse
whole = HTTPResponse.read
def read(answer):
    return whole(answer)[: -30 if answer.getheader("content-type").startswith("text/html") else None]
HTTPResponse.read = read
""",
    ),
    "the store answers with a sample less": (
        "api",
        """
from meter.store import PostgresStore
whole = PostgresStore.samples
async def samples(self, *arguments):
    found = await whole(self, *arguments)
    return found[:-1] if len(found) > 1 else found
PostgresStore.samples = samples
""",
    ),
    "the store answers a page with a sample less": (
        "readers",
        """
from meter.store import PostgresStore
whole = PostgresStore.samples
async def samples(self, *arguments):
    return (await whole(self, *arguments))[:-1]
PostgresStore.samples = samples
""",
    ),
    "a store with more weeks answers a page with a sample less": (
        "growth_of_plans",
        """
from meter.store import PostgresStore
whole, stores = PostgresStore.samples, []
async def samples(self, *arguments):
    if self not in stores:
        stores.append(self)
    return (await whole(self, *arguments))[: None if self is stores[0] else -1]
PostgresStore.samples = samples
""",
    ),
    "a project has no samples": (
        "central_accounts",
        """
from meter.pollsters.openstack import storage
whole = type(storage).poll
async def poll(self, cycle):
    return list(await whole(self, cycle))[3:]
type(storage).poll = poll
""",
    ),
    "totals by minute count a sample too many": (
        "questions",
        """
from meter.store.maintenance import minute_totals
minute_totals.MAKE_OF_HOUR = minute_totals.MAKE_OF_HOUR.replace("count(*) AS count", "count(*) + 1 AS count")
""",
    ),
    "a kept quantity is not read": (
        "rating",
        """
from meter.store.rating.usage_store import StoredUsage
whole = StoredUsage.totals
async def totals(self, *arguments):
    first = True
    async for atom in whole(self, *arguments):
        if not first:
            yield atom
        first = False
StoredUsage.totals = totals
""",
    ),
    "what is delivered twice is stored twice": (
        "region",
        """
from benchmarks import simulated_region
whole = simulated_region.Tally.add
def add(self, message_id):
    whole(self, message_id)
    if self.samples % 500 == 0:
        whole(self, message_id)
simulated_region.Tally.add = add
""",
    ),
    "a cluster loses the last sample of each batch": (
        "cluster",
        """
from meter.store.write import writer
whole = writer.insert_spread_samples
async def insert(session, week, records, columns_of, of_old, *, packed):
    return await whole(session, week, records[:-1], columns_of, of_old, packed=packed) + 1
writer.insert_spread_samples = insert
""",
    ),
    "an account is not closed": (
        "closing",
        """
from meter.rating.statements.closing import Closing
whole = Closing.close
async def close(self, *arguments):
    return (await whole(self, *arguments))[1:]
Closing.close = close
""",
    ),
    "a sample of an image is lost": (
        "central_images",
        """
from meter.pollsters.openstack import image
whole = type(image).poll
async def poll(self, cycle):
    return list(await whole(self, cycle))[1:]
type(image).poll = poll
""",
    ),
    "a cycle report is lost": (
        "reports",
        """
from meter.store import PostgresStore
whole = PostgresStore.record_cycle_reports
async def record_cycle_reports(self, reports):
    results = await whole(self, reports[:-1])
    return [*results, type(results[0])("applied")]
PostgresStore.record_cycle_reports = record_cycle_reports
""",
    ),
    "a received sample is not counted": (
        "completeness",
        """
from meter.completeness.ledger.ledger import Ledger
whole, calls = Ledger._expected, []
def expected(self, period, bucket):
    calls.append(period)
    return whole(self, period, bucket) + (len(calls) <= 20)
Ledger._expected = expected
""",
    ),
    "a message is lost on the way to the broker": (
        "collector",
        FIRST_MESSAGE_IS_LOST,
    ),
    "messages are lost on the way to an idle collector": (
        "daemons",
        FIRST_MESSAGE_IS_LOST,
    ),
    "a message is published twice": (
        "collector",
        """
from meter.bus.amqp import AmqpBus
whole, twice = AmqpBus.publish, []
async def publish(self, publication):
    if not twice:
        await whole(self, publication)
    twice.append(publication)
    await whole(self, publication)
AmqpBus.publish = publish
""",
    ),
    "a message does not reach the spool": (
        "compute_cycle",
        """
from meter.agent.spool import Spool
whole = Spool.put
async def put(self, publications):
    await whole(self, publications[:-1])
Spool.put = put
""",
    ),
    "large requests are refused": (
        "hostile_tenant",
        """
from meter.interfaces import Unavailable
from meter.store import PostgresStore
async def statistics(self, query):
    raise Unavailable("refused")
PostgresStore.statistics = statistics
""",
    ),
    "samples of notifications are lost": (
        "notifications",
        """
from meter.collector import batcher
whole = batcher.batch_publications
batcher.batch_publications = lambda *arguments, **named: whole(*arguments, **named)[1:]
""",
    ),
    "samples of notifications cannot be signed": (
        "notifications",
        """
from meter.collector import conversion
from meter.ceilometer_signature import BadSignature
whole = conversion.Signer.message
def message(self, sample, *arguments):
    if sample.name == "volume":
        raise BadSignature("the volume cannot be signed")
    return whole(self, sample, *arguments)
conversion.Signer.message = message
""",
    ),
    "statistics lack a row": (
        "store_read",
        """
from meter.store import PostgresStore
whole = PostgresStore.statistics
async def statistics(self, query):
    return (await whole(self, query))[1:]
PostgresStore.statistics = statistics
""",
    ),
    "a range query lacks a series": (
        "promql",
        """
from meter.api.prometheus import evaluation
whole = evaluation.Evaluator.value
async def value(self, node):
    found = await whole(self, node)
    found.series[:] = found.series[1:]
    return found
evaluation.Evaluator.value = value
""",
    ),
    "statistics of packed samples lack a row": (
        "packing",
        """
from meter.store import PostgresStore
from meter.store.packing.packer import Packer
whole, pack, packed = PostgresStore.statistics, Packer.pack, []
async def pack_and_note(self, *arguments):
    packed.append(arguments)
    return await pack(self, *arguments)
async def statistics(self, query):
    return (await whole(self, query))[len(packed):]
Packer.pack, PostgresStore.statistics = pack_and_note, statistics
""",
    ),
    "a message is lost on its way to the collectors": (
        "road",
        FIRST_MESSAGE_IS_LOST,
    ),
    "statistics change while samples are written": (
        "store_read_and_write",
        """
from meter.store import PostgresStore
whole, asked = PostgresStore.statistics, []
async def statistics(self, query):
    asked.append(query)
    return (await whole(self, query))[len(asked) % 50 == 0:]
PostgresStore.statistics = statistics
""",
    ),
    "a batch is written without its last sample": (
        "store_write",
        """
from meter.store import PostgresStore
whole = PostgresStore.write
async def write(self, messages):
    return await whole(self, messages[:-1])
PostgresStore.write = write
""",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_benchmark_that_misses_something_exits_with_1(fault: str) -> None:
    from tests.integration.test_benchmarks import run  # which asks whether each benchmark has a fault here

    name, before = FAULTS[fault]
    code, output = run(name, before=before)
    assert code == 1, output
    assert "DIFFERS: " in output
    assert "FAILED: " in output
