"""The spool on disk and the outbox that publishes it."""

import resource
import sqlite3
import tracemalloc
from contextlib import closing

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.logger import eventAsText
from zope.interface import implementer

from meter.agent.outbox import Outbox
from meter.agent.spool import Spool
from meter.agent.spool_database import CHECKPOINT_BYTES
from meter.agent.spool_database import PAGE_BYTES
from meter.agent.spool_database import SCHEMA
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.metrics import metrics_registry
from meter.daemon.services import Backoff
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable


def publication(number, samples=1, size=10):
    body = f"{number:06}".encode().ljust(size, b".")
    return Publication(exchange="metering", routing_key="metering.cpu", body=body, headers={"meter-samples": samples})


@implementer(IPublisher)
class Bus:
    """Confirms at once, or not at all while ``away``; holds confirms back while ``slow``."""

    def __init__(self):
        self.bodies = []
        self.away = False
        self.slow = None
        self.hates = None

    async def publish(self, publication):
        if publication.body == self.hates:
            raise ValueError("too large")
        if self.slow is not None:
            await self.slow
        if self.away:
            raise Unavailable("the broker is away")
        self.bodies.append(int(publication.body.rstrip(b".")))


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_000_000)
    return clock


@pytest.fixture
def open_spool(tmp_path, clock):
    spools = []

    def opened(**limits):
        limits = {"max_bytes": 10_000, "max_age_seconds": 3600.0} | limits
        spools.append(Spool(tmp_path / "deep/spool.sqlite", clock=clock, run=maybeDeferred, **limits))
        return spools[-1]

    yield opened
    for spool in spools:
        pytest_twisted.blockon(Deferred.fromCoroutine(spool.close()))


def outbox(spool, bus, clock, registry=None, **more):
    metrics = PublishingMetrics(registry or metrics_registry("test"))
    return Outbox(spool, bus, clock, metrics=metrics, backoff=Backoff(1, 8, rng=lambda: 1.0), **more)


async def bodies(spool):
    return [int(one.publication.body.rstrip(b".")) for one in await spool.oldest(1000)]


@pytest_twisted.ensureDeferred
async def test_publications_survive_a_restart(open_spool):
    await open_spool().put([publication(1, samples=7), publication(2)])

    again = open_spool()

    first, second = await again.oldest(10)
    assert first.publication == publication(1, samples=7)
    assert second.publication == publication(2)
    assert (again.rows, again.bytes) == (2, 20)


@pytest_twisted.ensureDeferred
async def test_file_is_synchronised_with_the_disk_at_every_commit(open_spool, tmp_path):
    spool = open_spool()
    await spool.put([publication(1)])

    assert spool._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert spool._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def page_bytes(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA page_size").fetchone()[0]


@pytest_twisted.ensureDeferred
async def test_publications_are_written_to_large_pages_and_deleted_ones_are_not_overwritten(open_spool, tmp_path):
    spool = open_spool()
    await spool.put([publication(1)])

    assert page_bytes(tmp_path / "deep/spool.sqlite") == PAGE_BYTES
    assert spool._database.execute("PRAGMA secure_delete").fetchone() == (0,)
    assert spool._database.execute("PRAGMA wal_autocheckpoint").fetchone() == (CHECKPOINT_BYTES // PAGE_BYTES,)


@pytest_twisted.ensureDeferred
async def test_spool_of_an_earlier_meter_gets_large_pages_once_it_is_empty(open_spool, tmp_path):
    path = tmp_path / "deep/spool.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA page_size = 4096")
        database.execute("PRAGMA journal_mode = WAL")
    await open_spool().put([publication(1, samples=7)])  # empty before that
    assert page_bytes(path) == PAGE_BYTES

    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA page_size = 4096")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE elsewhere (one)")
        database.executescript(SCHEMA)
        database.execute("INSERT INTO outbox VALUES (7, 1000000, 3, 'metering', 'metering.cpu', '{}', '000042')")
        database.commit()
    filled = open_spool()
    [waiting] = await filled.oldest(10)
    assert (waiting.id, waiting.publication.body, page_bytes(path)) == (7, "000042", 4096)
    assert filled._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await filled.remove([7])
    await filled.close()

    again = open_spool()
    await again.put([publication(2)])
    assert page_bytes(path) == PAGE_BYTES
    assert [each.id for each in await again.oldest(10)] == [8]  # ids are never given out twice
    assert again._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest_twisted.ensureDeferred
async def test_spool_that_another_process_reads_keeps_its_pages(open_spool, tmp_path):
    path = tmp_path / "deep/spool.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA page_size = 4096")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE elsewhere (one)")
        database.execute("BEGIN")
        database.execute("SELECT * FROM elsewhere").fetchall()
        spool = open_spool()
        await spool.put([publication(1)])

        assert await bodies(spool) == [1]
        assert spool._database.execute("PRAGMA page_size").fetchone() == (4096,)
        assert spool._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest_twisted.ensureDeferred
async def test_full_spool_drops_the_oldest_and_logs_the_loss(open_spool, clock, logged_errors):
    spool = open_spool(max_bytes=30)
    for number in range(1, 4):
        await spool.put([publication(number, samples=5)])
        clock.advance(60)

    await spool.put([publication(4), publication(5)])

    assert await bodies(spool) == [3, 4, 5]
    assert spool.lost_samples == 10
    assert "LOST 10 samples, spooled from 1970-01-12T13:46:40" in eventAsText(logged_errors.flush()[0])
    assert (spool.rows, spool.bytes) == (3, 30)


@pytest_twisted.ensureDeferred
async def test_publications_beyond_the_maximum_age_are_dropped_and_logged(open_spool, clock, logged_errors):
    spool = open_spool()
    await spool.put([publication(1, samples=3)])
    clock.advance(3000)
    await spool.put([publication(2)])
    clock.advance(1000)

    assert await bodies(spool) == [2]
    assert spool.lost_samples == 3
    assert "they exceeded the maximum age" in eventAsText(logged_errors.flush()[0])


@pytest_twisted.ensureDeferred
async def test_disk_error_is_unavailable(open_spool, tmp_path):
    (tmp_path / "deep").write_text("a file where the directory should be")

    with pytest.raises(Unavailable, match=r"spool\.sqlite cannot be used"):
        await open_spool().put([publication(1)])


@pytest_twisted.ensureDeferred
async def test_put_that_fails_half_way_leaves_nothing(open_spool):
    spool = open_spool()
    await spool.put([publication(1)])
    spool._database.execute(
        "CREATE TRIGGER full AFTER INSERT ON outbox WHEN instr(NEW.body, X'39') BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )

    with pytest.raises(Unavailable, match="disk full"):
        await spool.put([publication(2), publication(9)])

    assert await bodies(spool) == [1]
    assert (spool.rows, spool.bytes) == (1, 10)


@pytest_twisted.ensureDeferred
async def test_outbox_sends_oldest_first_and_removes_what_is_confirmed(open_spool, clock):
    spool, bus = open_spool(), Bus()
    await spool.put([publication(1), publication(2)])  # left by an earlier start
    box = outbox(spool, bus, clock, batch=2)
    box.startService()

    await box.put([publication(3)])

    assert bus.bodies == [1, 2, 3]
    assert spool.rows == 0
    assert box.readiness().ready
    await box.stopService()


@pytest_twisted.ensureDeferred
async def test_outbox_keeps_everything_while_the_bus_is_down_and_sends_it_in_order(open_spool, clock):
    spool, bus = open_spool(), Bus()
    bus.away = True
    box = outbox(spool, bus, clock)
    box.startService()
    for number in range(1, 6):
        await box.put([publication(number)])
        clock.advance(3)
    assert not box.readiness().ready
    assert spool.rows == 5

    bus.away = False
    clock.advance(8)

    assert bus.bodies == [1, 2, 3, 4, 5]
    assert (spool.rows, box.readiness().ready) == (0, True)
    await box.stopService()


@pytest_twisted.ensureDeferred
async def test_message_stays_on_disk_until_its_confirm(open_spool, clock):
    spool, bus = open_spool(), Bus()
    bus.slow = Deferred()
    box = outbox(spool, bus, clock, patience=2)
    box.startService()
    await box.put([publication(1)])
    stopping = box.stopService()

    clock.advance(2)
    await stopping

    assert await bodies(open_spool()) == [1]


@pytest_twisted.ensureDeferred
async def test_message_that_can_never_be_published_is_counted_and_does_not_block_the_next(
    open_spool, clock, logged_errors
):
    registry, spool, bus = metrics_registry("test"), open_spool(), Bus()
    bus.hates = publication(1).body
    box = outbox(spool, bus, clock, registry)
    box.startService()

    await box.put([publication(1, samples=3), publication(2)])

    assert bus.bodies == [2]
    assert spool.rows == 0
    assert registry.get_sample_value("meter_spool_dropped_samples_total") == 3
    assert len(logged_errors.flush()) == 1
    await box.stopService()


@pytest_twisted.ensureDeferred
async def test_when_empty_fires_when_everything_has_been_confirmed(open_spool, clock):
    spool, bus = open_spool(), Bus()
    bus.slow = Deferred()
    box = outbox(spool, bus, clock)
    box.startService()
    await box.put([publication(1)])

    empty = box.when_empty()

    assert not empty.called
    bus.slow.callback(None)
    assert empty.called
    await box.stopService()


@pytest_twisted.ensureDeferred
async def test_samples_that_a_full_disk_refuses_are_counted(open_spool, clock):
    registry, spool, bus = metrics_registry("test"), open_spool(), Bus()
    bus.away = True
    box = outbox(spool, bus, clock, registry)
    await box.put([publication(1)])
    spool._database.execute("PRAGMA max_page_count = 4")

    with pytest.raises(Unavailable, match="disk is full"):
        await box.put([publication(2, samples=3, size=160_000), publication(3, samples=4)])

    assert registry.get_sample_value("meter_spool_dropped_samples_total") == 7
    assert await bodies(spool) == [1]
    spool._database.execute("PRAGMA max_page_count = 1000")
    await box.put([publication(4)])
    assert await bodies(spool) == [1, 4]


@pytest.fixture
def short_files():
    """No file of this process grows beyond 1.6 MB: a disk that is full, as far as writing is concerned."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_600_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest_twisted.ensureDeferred
async def test_spool_still_works_on_a_full_disk(open_spool, short_files):
    spool = open_spool(max_bytes=8_000_000)
    for number in range(40):
        await spool.put([publication(number, size=160_000)])
        [waiting] = await spool.oldest(10)
        await spool.remove([waiting.id])

    async def fill():
        while True:
            await spool.put([publication(0, size=160_000)])

    with pytest.raises(Unavailable, match="I/O error"):
        await fill()

    waiting = await spool.oldest(40)
    assert len(waiting) == spool.rows
    assert spool.bytes == 160_000 * spool.rows > 0


@pytest_twisted.ensureDeferred
async def test_losses_of_the_spool_are_counted_once(open_spool, clock, logged_errors):
    registry, spool, bus = metrics_registry("test"), open_spool(max_bytes=30), Bus()
    bus.away = True
    box = outbox(spool, bus, clock, registry)
    box.startService()
    for number in range(1, 5):
        await box.put([publication(number, samples=5)])  # the fourth drives the first out
    assert registry.get_sample_value("meter_spool_dropped_samples_total") == 5

    clock.advance(4000)  # and the others wait too long

    assert registry.get_sample_value("meter_spool_dropped_samples_total") == 20
    assert len(logged_errors.flush()) == 2
    await box.stopService()


@pytest_twisted.ensureDeferred
async def test_memory_stays_flat_with_a_day_of_samples_in_the_spool(open_spool, clock):
    """32 MB on disk, of which one window of 1 MB is in memory at a time."""
    spool, bus = open_spool(max_bytes=1 << 30), Bus()
    bus.away = True
    box = outbox(spool, bus, clock, batch=100)
    box.startService()
    tracemalloc.start()
    try:
        for first in range(0, 3200, 100):
            await box.put([publication(number, size=10_000) for number in range(first, first + 100)])
        assert spool.rows == 3200
        bus.away = False
        clock.advance(8)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (len(bus.bodies), spool.rows) == (3200, 0)
    assert most < 8_000_000
    await box.stopService()


def test_sqlite_is_new_enough_for_returning():
    assert sqlite3.sqlite_version_info >= (3, 35)


@pytest_twisted.ensureDeferred
async def test_other_process_may_put_and_remove_too(open_spool):
    mine, other = open_spool(), open_spool()
    await mine.put([publication(1)])
    await other.put([publication(2)])
    assert [each.id for each in await mine.oldest(10)] == [1, 2]
    assert (mine.rows, mine.bytes) == (2, 20)

    await other.remove([1])
    await mine.remove([2])
    assert (mine.rows, mine.bytes) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_spool_can_be_read_in_pages(open_spool):
    spool = open_spool()
    await spool.put([publication(number) for number in range(5)])
    assert [each.id for each in await spool.oldest(2)] == [1, 2]
    assert [each.id for each in await spool.oldest(2, after=2)] == [3, 4]


@pytest_twisted.ensureDeferred
async def test_age_of_the_oldest_is_current_after_every_call(open_spool, clock):
    spool = open_spool()
    assert spool.oldest_seconds == 0
    await spool.put([])
    assert spool.oldest_seconds == 0
    await spool.put([publication(1)])
    clock.advance(10)
    await spool.put([publication(2), publication(3)])
    clock.advance(5)
    assert spool.oldest_seconds == 15
    first, second, third = [each.id for each in await spool.oldest(10)]
    await spool.remove([second])
    assert spool.oldest_seconds == 15
    await spool.remove([first])
    assert spool.oldest_seconds == 5
    await open_spool().remove([third])  # another process
    await spool.oldest(10)
    assert spool.oldest_seconds == 0


@pytest_twisted.ensureDeferred
async def test_age_of_the_oldest_survives_a_new_start(open_spool, clock):
    await open_spool().put([publication(1)])
    clock.advance(30)
    spool = open_spool()
    await spool.oldest(1)
    assert spool.oldest_seconds == 30


@pytest_twisted.ensureDeferred
async def test_age_of_the_oldest_changes_when_a_full_spool_drops_the_first(open_spool, clock, logged_errors):
    spool = open_spool(max_bytes=20)
    await spool.put([publication(1)])
    clock.advance(10)
    await spool.put([publication(2)])
    clock.advance(10)
    await spool.put([publication(3)])
    assert len(logged_errors.flush()) == 1
    assert spool.oldest_seconds == 10


@pytest_twisted.ensureDeferred
async def test_age_is_not_negative_when_the_clock_was_set_back(open_spool, clock):
    spool = open_spool()
    await spool.put([publication(1)])
    clock.rightNow -= 3600
    assert spool.oldest_seconds == 0


@pytest_twisted.ensureDeferred
async def test_bus_that_is_not_connected_yet_is_a_warning_only_if_it_stays_away(open_spool, clock):
    class Away:
        async def publish(self, publication):
            raise Unavailable("not connected")

    spool = open_spool()
    await spool.put([publication(1)])
    with capturedLogs() as events:
        sender = outbox(spool, Away(), clock)
        sender.startService()
        clock.pump([1] * 10)
        quiet = [each["log_level"].name for each in events]
        clock.pump([1] * 30)
        await sender.stopService()
    assert quiet == ["info"]
    assert [each["log_level"].name for each in events] == ["info", "warn"]
