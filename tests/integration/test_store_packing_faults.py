"""The packer beside others: killed at any statement, beside writers, readers and long transactions, no sample is lost or stored twice."""

from __future__ import annotations

import itertools
import random

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.interfaces import Unavailable
from meter.sample_identity import week_of
from meter.store.packing.packer import NotVerified
from meter.store.packing.packer import Packer
from meter.store.packing.packer import pack_everything
from meter.store.packing.unpacking import unpack_next
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import all_samples
from tests.integration.test_store_packing import counts
from tests.integration.test_store_packing import varied
from tests.integration.test_store_rollups import running
from tests.packing import PAUSE
from tests.packing import pack_all
from tests.packing import session_of


class Watched:
    """A session that calls ``before`` with the number and the text of each statement before it is executed."""

    def __init__(self, session, before):
        self._session = session
        self._before = before
        self._numbers = itertools.count(1)

    @property
    def closed(self):
        return self._session.closed

    async def rows(self, statement, parameters=None):
        await self._before(next(self._numbers), statement)
        return await self._session.rows(statement, parameters)

    async def count(self, statement, parameters=None):
        await self._before(next(self._numbers), statement)
        return await self._session.count(statement, parameters)


async def killed_before(fatal, session, postgresql):
    """Return ``session``, which PostgreSQL ends before its statement with the number ``fatal``."""
    [[pid]] = await session.rows("SELECT pg_backend_pid()")

    async def kill(number, statement):
        if number == fatal:
            postgresql.execute(f"SELECT pg_terminate_backend({pid}, 5000)")

    return Watched(session, kill)


def packer_of(session, **options):
    return Packer(session, options.pop("pause", PAUSE), **{"max_group_samples": 25, **options})


@pytest_twisted.ensureDeferred
async def test_packer_that_is_killed_before_any_of_its_statements_loses_and_doubles_nothing_and_goes_on(postgresql):
    dsn = postgresql.dsn()
    week = week_of(OLD)
    async with running(dsn) as store:
        stored = varied(60)
        await store.write(stored[:40])
        await pack_all(dsn)
        await store.write(stored[40:])
        before = all_samples(postgresql, dsn)
        killed, progress = 0, set()
        for fatal in itertools.count(1):
            async with session_of(dsn) as session:
                packer = packer_of(await killed_before(fatal, session, postgresql))
                try:
                    await packer.pack(week, even_if_not_final=True)
                except Unavailable:
                    killed += 1
                assert all_samples(postgresql, dsn) == before, fatal
                progress.add(counts(postgresql, dsn))
                if not session.closed:
                    break
                # What an attempt has done is undone, so that the next one gets as far as this.
                if counts(postgresql, dsn) == (0, 60):
                    await store.write(varied(25, at=OLD.replace(hour=3, microsecond=fatal)))
                    before = all_samples(postgresql, dsn)
        assert killed > 20
        assert len(progress) > 1
        assert (await store.write(stored)).duplicates == 60


@pytest_twisted.ensureDeferred
async def test_writers_do_not_wait_while_the_transaction_of_a_group_is_open(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        old, late, new = varied(100), varied(30, at=OLD.replace(hour=9)), varied(30, at=NOW)
        await store.write(old)
        before = all_samples(postgresql, dsn)
        results = []

        async def write(number, statement):
            if "INTO packed_samples" in statement and not results:  # the plain rows are taken, nothing is committed
                assert counts(postgresql, dsn) == (100, 0)
                for batch in (new, late, old, late):
                    results.append(await store.write(batch))
                assert counts(postgresql, dsn) == (160, 0)

        async with session_of(dsn) as session:
            assert await packer_of(Watched(session, write)).pack(week_of(OLD), even_if_not_final=True) == 100
        assert [(each.stored, each.duplicates) for each in results] == [(30, 0), (30, 0), (0, 100), (0, 30)]
        assert counts(postgresql, dsn) == (60, 100)
        assert [row for row in all_samples(postgresql, dsn) if row in before] == before


@pytest_twisted.ensureDeferred
async def test_older_snapshot_sees_every_sample_once_while_its_week_is_packed_and_unpacked(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await store.write(varied(60))
        before = all_samples(postgresql, dsn)
        reader = psycopg2.connect(dsn)
        try:
            for change in ("pack", "unpack"):
                with reader, reader.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    cursor.execute(
                        "SELECT (SELECT count(*) FROM sample), (SELECT coalesce(sum(count), 0) FROM packed_samples)"
                    )
                    seen = cursor.fetchall()
                    async with session_of(dsn) as session:
                        if change == "pack":
                            await pack_everything(session, PAUSE)
                        else:
                            await session.count("BEGIN")
                            assert await unpack_next(session, week_of(OLD), 1000) == 60
                            await session.count("COMMIT")
                    cursor.execute(
                        "SELECT (SELECT count(*) FROM sample), (SELECT coalesce(sum(count), 0) FROM packed_samples)"
                    )
                    assert cursor.fetchall() == seen
                assert all_samples(postgresql, dsn) == before
        finally:
            reader.close()


@pytest_twisted.ensureDeferred
async def test_packer_waits_for_a_writer_in_progress_and_packs_nothing_that_it_could_miss(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        old = varied(50)
        await store.write(old[:40])
        gate, pauses = Deferred(), []

        async def slowly(session):
            await store._sample_writer._store(session, [record for _, record in records])
            await gate

        from meter.store.write.record import record_of

        records = sorted(enumerate(map(record_of, old[40:])), key=lambda each: each[1].timestamp)
        writing = Deferred.fromCoroutine(store._writers.run(slowly))

        async def pause():
            pauses.append(counts(postgresql, dsn))
            if len(pauses) == 3:
                gate.callback(None)
                await writing

        async with session_of(dsn) as session:
            for _ in range(50):
                if postgresql.execute("SELECT FROM pg_locks WHERE relation = 'sample'::regclass", dsn):
                    break
                await PAUSE()
            packed = await packer_of(session, pause=pause).pack(week_of(OLD), even_if_not_final=True)
        assert pauses[:3] == [(40, 0)] * 3
        assert packed in (40, 50)
        assert sum(counts(postgresql, dsn)) == 50
        await pack_all(dsn)
        assert counts(postgresql, dsn) == (0, 50)
        assert (await store.write(old)).duplicates == 50


@pytest_twisted.ensureDeferred
async def test_samples_that_several_writers_repeat_while_their_week_is_packed_and_merged_are_stored_once(postgresql):
    dsn = postgresql.dsn()
    chosen = random.Random(19)
    async with running(dsn) as one, running(dsn) as other:
        sent = varied(400)
        chosen.shuffle(sent)
        results = []

        async def write(store):
            for first in range(0, 400, 40):
                again = sent[max(first - 80, 0) : first + 40]
                results.append(await store.write(again))
                await PAUSE()

        async def pack():
            async with session_of(dsn) as session:
                while len(results) < 20:
                    await packer_of(session).pack(week_of(OLD), even_if_not_final=True)
                    await PAUSE()

        await one.write(sent[:1])
        await gatherResults([Deferred.fromCoroutine(work) for work in (write(one), write(other), pack())])
        await pack_all(dsn)

        assert counts(postgresql, dsn) == (0, 400)
        ids = [row[2] for row in all_samples(postgresql, dsn)]
        assert sorted(ids) == sorted(message.message_id for message in sent)
        assert sum(result.stored for result in results) == 399
        assert not any(result.refused for result in results)


@pytest_twisted.ensureDeferred
async def test_group_that_is_not_read_back_as_it_was_is_not_packed(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await store.write(varied(60))
        before = all_samples(postgresql, dsn)
        changes = (
            "volumes[3] = 7",
            "volumes = volumes[2:] || volumes[1]",
            "count = count - 1",
            "last = last - interval '1 s'",
            "least_offset = least_offset + 1",
            "message_ids = message_ids[2:2] || message_ids[1:1] || message_ids[3:]",
            "metadata_ids = metadata_ids[2:]",
        )
        for change in changes:
            async with session_of(dsn) as session:

                async def alter(number, statement, change=change, session=session):
                    if "float8send" in statement:
                        await session.count(f"UPDATE packed_samples SET {change}")

                with pytest.raises(NotVerified):
                    await packer_of(Watched(session, alter)).pack(week_of(OLD), even_if_not_final=True)
            assert counts(postgresql, dsn) == (60, 0), change
            assert all_samples(postgresql, dsn) == before


@pytest_twisted.ensureDeferred
async def test_one_session_packs_at_a_time(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn), session_of(dsn) as one, session_of(dsn) as other:
        first = packer_of(one)
        await first.open()
        with pytest.raises(Unavailable, match="another session"):
            await packer_of(other).open()
        await first.close()
        await packer_of(other).open()
