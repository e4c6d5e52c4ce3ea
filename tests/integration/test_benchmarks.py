"""Every benchmark runs, and every benchmark can fail.

At its smallest size each ends with exit code 0, and nothing that it started holds its output open. With a Meter that loses
something, or answers something else, each ends with exit code 1; where something is not installed, with 2 and a sentence.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers import citus
from tests.servers import not_allowed
from tests.servers import not_installed
from tests.servers import postgresql
from tests.servers import rabbitmq

ROOT = Path(__file__).parents[2]
SECONDS = 300.0

SHARED = {
    *("__init__", "measuring", "workload", "before_after"),
    *("simulated_region", "region_history", "region_collector", "region_writing"),
}
"""Modules that are no benchmarks; before_after runs those of another checkout, which has an environment of its own."""
SMALLEST = {
    "api": ["--samples", "10000", "--runs", "1", "--requests", "5"],
    "central_accounts": ["--projects", "5", "--runs", "1"],
    "central_images": ["--images", "1000", "--runs", "1"],
    "cluster": ["--runs", "1", "--batches", "1", "--shards", "1"],
    "closing": ["--instances", "40", "--skus", "2", "--runs", "1", "--mode", "not-durable"],
    "dashboard": ["--days", "1", "--instances", "8", "--runs", "1", "--paints", "0"],
    "collector": [
        "--samples",
        "400",
        "--instances",
        "10",
        "--runs",
        "2",
        "--mode",
        "durable",
        "--stalled-seconds",
        "3",
    ],
    "completeness": [
        *("--days", "2", "--counted-days", "1", "--hosts", "2", "--instances", "8", "--large", "4"),
        *("--runs", "1", "--mode", "not-durable"),
    ],
    "compute_cycle": ["--domains", "2", "--runs", "1"],
    "daemons": [
        *("--settle-seconds", "0", "--idle-seconds", "1", "--samples", "300", "--instances", "10", "--runs", "1"),
        *("--stalled-seconds", "60"),
    ],
    "hostile_tenant": [
        *("--samples", "10000", "--runs", "1", "--requests", "3", "--posts", "1", "--before-seconds", "1"),
    ],
    "notifications": ["--notifications", "100", "--runs", "1", "--stalled-seconds", "3"],
    "packing": ["--resources", "8", "--polls", "400", "--runs", "1"],
    "promql": ["--days", "1", "--instances", "8", "--runs", "1", "--mode", "not-durable"],
    "questions": ["--minutes", "700", "--resources", "24", "--runs", "1"],
    "rating": [
        *("--instances", "40", "--measured", "4", "--skus", "2", "--runs", "1", "--mode", "not-durable"),
    ],
    "region": [
        *(
            "--sizes",
            "110x30x1x10",
            "--meters",
            "2",
            "--retention-days",
            "21",
            "--pack-after-days",
            "7",
            "--delivered-days",
            "2",
        ),
        *("--cycles", "2", "--late-every", "5", "--twice-every", "3", "--answers", "1"),
    ],
    "readers": [
        *("--samples", "10000", "--clients", "5", "--requests", "2", "--processes", "2", "--runs", "1"),
    ],
    "road": [
        *("--samples", "400", "--instances", "10", "--runs", "1", "--mode", "durable", "--stalled-seconds", "3"),
    ],
    "reports": ["--agents", "2", "--instances", "10", "--runs", "1"],
    "store_read": ["--days", "1", "--instances", "8", "--runs", "1", "--mode", "not-durable"],
    "store_read_and_write": [
        *("--days", "1", "--instances", "8", "--runs", "1", "--mode", "not-durable"),
        *("--batches", "2", "--alone-seconds", "0.5"),
    ],
    "store_write": ["--runs", "2", "--batches", "1"],
}
POSTGRESQL = {
    "api",
    "closing",
    "cluster",
    "collector",
    "completeness",
    "daemons",
    "hostile_tenant",
    "packing",
    "promql",
    "questions",
    "rating",
    "region",
    "readers",
    "reports",
    "road",
    "store_read",
    "store_read_and_write",
    "store_write",
}
RABBITMQ = {"collector", "daemons", "notifications", "road"}

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
        """
from meter.bus.amqp import AmqpBus
whole, lost = AmqpBus.publish, []
async def publish(self, publication):
    if lost:
        await whole(self, publication)
    lost.append(publication)
AmqpBus.publish = publish
""",
    ),
    "messages are lost on the way to an idle collector": (
        "daemons",
        """
from meter.bus.amqp import AmqpBus
whole, lost = AmqpBus.publish, []
async def publish(self, publication):
    if lost:
        await whole(self, publication)
    lost.append(publication)
AmqpBus.publish = publish
""",
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
        """
from meter.bus.amqp import AmqpBus
whole, lost = AmqpBus.publish, []
async def publish(self, publication):
    if lost:
        await whole(self, publication)
    lost.append(publication)
AmqpBus.publish = publish
""",
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

MISSING = {
    "libvirt-python": ("compute_cycle", "import sys; sys.modules['libvirt'] = None"),
    "PostgreSQL": ("store_write", "from tests.servers import postgresql; postgresql.installed = lambda: None"),
    "RabbitMQ": ("notifications", "from tests.servers import rabbitmq; rabbitmq.installed = lambda: None"),
}

RUN = "import runpy, sys; sys.argv[0] = {name!r}; runpy.run_module('benchmarks.{name}', run_name='__main__')"


def run(name: str, *, before: str = "") -> tuple[int, str]:
    """Run a benchmark at its smallest size, after the statements ``before``; return its exit code and its output."""
    for server, users in ((postgresql, POSTGRESQL), (rabbitmq, RABBITMQ)):
        if name in users and server.installed() is None:
            not_installed(server.INSTALL)
    if name == "cluster" and (missing := citus.extension_missing(postgresql.installed())):
        not_allowed(missing)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{RUN.format(name=name)}", *SMALLEST[name]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)  # until nobody can write to it any more, as a pipe would
    except subprocess.TimeoutExpired:
        ended = process.poll() is not None
        pytest.fail(f"it ended with {process.returncode}, but its output did not" if ended else "it did not end")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it started, if it did not end that itself
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    return process.returncode, output


def test_each_benchmark_is_known_here() -> None:
    assert {path.stem for path in ROOT.glob("benchmarks/*.py")} - SHARED == set(SMALLEST)


def test_each_benchmark_has_a_fault_that_it_must_notice() -> None:
    assert {name for name, _ in FAULTS.values()} == set(SMALLEST)


@pytest.mark.parametrize("name", SMALLEST)
def test_benchmark_that_counts_everything_exits_with_0(name: str) -> None:
    code, output = run(name)
    assert code == 0, output
    assert "all equal" in output
    assert "DIFFERS" not in output


@pytest.mark.parametrize("fault", FAULTS)
def test_benchmark_that_misses_something_exits_with_1(fault: str) -> None:
    name, before = FAULTS[fault]
    code, output = run(name, before=before)
    assert code == 1, output
    assert "DIFFERS: " in output
    assert "FAILED: " in output


@pytest.mark.parametrize("what", MISSING)
def test_benchmark_without_what_it_needs_exits_with_2_and_says_what(what: str) -> None:
    name, before = MISSING[what]
    code, output = run(name, before=before)
    assert code == 2, output
    assert f"{what}" in output
    assert "not installed" in output.splitlines()[-1]
