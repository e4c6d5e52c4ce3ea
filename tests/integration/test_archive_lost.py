"""An archive server whose disks are gone and of which there is no backup: ``meter-db archive-server lost``, on two real servers."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import PartlyStored
from meter.archive_unavailable import SamplesLost
from meter.commands.command import status_of
from meter.commands.verify import Options as VerifyOptions
from meter.commands.verify import work as verify
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.query import WriteResult
from meter.store import Act
from meter.store import Administration
from meter.store import Retention
from meter.store import Selection
from meter.store.archive import archive_losses
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_db_archive import archive_states
from tests.integration.test_db_archive import in_process
from tests.integration.test_store_archive import WEEK
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import counts
from tests.integration.test_store_packing import varied
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.store_messages import KEYS
from tests.store_messages import message

pytestmark = pytest.mark.timeout(240)

HOURLY = StatisticsQuery(filter=SampleFilter(), period=3600)
NEXT_WEEK = WEEK + timedelta(weeks=1)
UNFINAL = "SELECT count(*) FROM changed_series"


async def archived_week(dsn, *, late=()):
    """Store samples of an old week, archive them, and store ``late`` ones; return the former."""
    stored = varied(300)
    async with running(dsn) as store:
        await store.write(stored)
        await store.write(varied(20, at=NOW - timedelta(days=1)))
        await store.maintenance.finalize(NOW)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn, before=NEXT_WEEK)
        await store.write(late)
    return stored


async def recorded_as_lost(meter_db):
    """Record that the server ``cold`` is lost with all its samples."""
    return await meter_db("archive-server", "--json", "--expect", "300", "--reason", "the disks burnt", "lost", "cold")


@pytest_twisted.ensureDeferred
async def test_loss_is_recorded_only_if_it_is_one_and_the_number_of_samples_is_known(
    postgresql, archive_postgresql, tmp_path, capsys, monkeypatch
):
    dsn = postgresql.dsn_with_schema()
    archive_dsn = archive_postgresql.dsn()
    add_server(dsn, archive_dsn)
    await archived_week(dsn)
    meter_db = in_process(dsn, tmp_path / "meter.toml", capsys)
    status, _, errors = await recorded_as_lost(meter_db)
    assert (status, "it is not lost" in errors) == (3, True)

    await deferToThread(archive_postgresql.stop)
    try:
        status, out, errors = await meter_db("archive-server", "--json", "lost", "cold")
        report = json.loads(out)
        assert (status, errors, report["lost_samples"]) == (1, "", 300)
        assert report["weeks"] == [
            {"week": str(WEEK), "lost_samples": 300, "samples_kept": 0, "hours_without_late_samples": 0}
        ]
        assert "--expect 300" in report["nothing_changed"]
        for refused, text in (
            (["--expect", "299", "--reason", "burnt", "lost", "cold"], "300 samples are lost, not 299"),
            (["--expect", "300", "lost", "cold"], "--reason"),
            (
                ["--expect", "300", "--reason", "burnt", "lost", "cold", "2001-01-01"],
                "2001-01-01 is not archived on cold",
            ),
            (["--expect", "300", "--reason", "burnt", "lost", "warm"], "no archive server warm"),
        ):
            status, _, errors = await meter_db("archive-server", *refused)
            assert (status, text in errors) == (3, True), errors
        assert postgresql.execute("SELECT lost_at FROM archived_week", dsn) == [(None,)]

        status, out, errors = await recorded_as_lost(meter_db)
        assert (status, errors, json.loads(out)["lost_samples"]) == (0, "", 300)
        [[action, reason, details]] = postgresql.execute(
            "SELECT action, reason, details FROM audit_entry ORDER BY seq DESC LIMIT 1", dsn
        )
        assert (action, reason) == ("archive-server", "the disks burnt")
        assert (json.loads(details)["weeks"], json.loads(details)["samples"]) == ([str(WEEK)], 300)
    finally:
        await deferToThread(archive_postgresql.start)
    status, _, errors = await recorded_as_lost(meter_db)
    assert (status, "its weeks are recorded as lost already" in errors) == (3, True)
    status, _, errors = await meter_db("archive-server", "lost", "cold")
    assert (status, "meter-db archive-server remove cold" in errors) == (3, True)
    status, out, _ = await meter_db("archive", str(WEEK), "cold")
    assert (status, "lost, recorded on" in out) == (1, True)
    status, out, errors = await meter_db("unarchive", str(WEEK))
    assert (status, out, "cannot be brought back: its samples are lost" in errors) == (3, "", True)
    [[last]] = postgresql.execute("SELECT action FROM audit_entry ORDER BY seq DESC LIMIT 1", dsn)
    assert last == "archive"

    async def looked_at_before(*_):
        """Return nothing, as if this command had looked at the week before the other one recorded the loss."""

    monkeypatch.setattr(archive_losses, "losses", looked_at_before)
    status, _, errors = await meter_db(
        "archive-server", "--expect", "300", "--reason", "again", "lost", "cold", str(WEEK)
    )
    assert (status, "is recorded as lost already" in errors) == (3, True)


@pytest_twisted.ensureDeferred
async def test_questions_say_that_samples_are_lost_and_everything_else_goes_on(
    postgresql, archive_postgresql, tmp_path, capsys
):
    dsn = postgresql.dsn_with_schema()
    add_server(dsn, archive_postgresql.dsn())
    late = [message(at=OLD + timedelta(seconds=30), resource_id="r1")]
    stored = await archived_week(dsn, late=late)
    meter_db = in_process(dsn, tmp_path / "meter.toml", capsys)
    new = message(at=OLD + timedelta(seconds=31), resource_id="r1")
    other = message(volume=77, at=OLD + timedelta(hours=5), message_id=stored[107].message_id)
    batch = [stored[40], *varied(5, at=NOW - timedelta(days=1, hours=1)), stored[41], late[0]]
    await deferToThread(archive_postgresql.stop)
    try:
        async with running(dsn, readers=1) as store:
            with pytest.raises(PartlyStored) as partly:
                await store.write(batch)
            assert partly.value.postponed == {0, 6}
            assert postgresql.execute(UNFINAL, dsn) == [(1,)]
            with pytest.raises(ArchiveUnavailable):
                await store.samples(SampleFilter(), 1000)
            _, out, _ = await recorded_as_lost(meter_db)
            assert json.loads(out)["weeks"][0]["hours_without_late_samples"] == 1

            for question in (
                store.samples(SampleFilter(), 1000),
                store.sample_page(SampleFilter(), 1000),
                store.samples(SampleFilter(equals={"message_id": stored[107].message_id}), 1),
                store.statistics(StatisticsQuery(filter=SampleFilter(end=OLD + timedelta(minutes=5)), period=600)),
                store.proof(stored[107].message_id, SampleFilter()),
            ):
                with pytest.raises(SamplesLost) as lost:
                    await question
                assert (f"week of {WEEK} are lost" in lost.value.public_text, "entry 1 " in str(lost.value)) == (
                    True,
                    True,
                )
            assert len(await store.samples(SampleFilter(), 20)) == 20
            hours = await store.statistics(HOURLY)
            assert sum(each.values["count"] for each in hours) == 325
            assert len(await store.resources(SampleFilter(), 100)) == 5

            # Nothing waits any more: what repeats a lost sample is one, and what is new is refused.
            assert await store.write(batch) == WriteResult(stored=0, duplicates=8)
            assert await store.write(stored) == WriteResult(stored=0, duplicates=300)
            result = await store.write([new, other, *varied(3, at=NOW - timedelta(days=2))])
            assert (result.stored, [each.index for each in result.refused]) == (3, [0, 1])
            assert f"its week, {WEEK}, are lost" in result.refused[0].reason
            assert (await store.write(varied(2, at=OLD + timedelta(days=7)))).stored == 2
            finalized = await store.maintenance.finalize(NOW)
            assert postgresql.execute(UNFINAL, dsn) == [(0,)]
            await store.maintenance.run()
            assert finalized is not None
            hours = await store.statistics(HOURLY)
            assert sum(each.values["count"] for each in hours) == 330
            assert counts(postgresql, dsn)[1] == 320
    finally:
        await deferToThread(archive_postgresql.start)


@pytest_twisted.ensureDeferred
async def test_commands_say_which_weeks_are_lost_and_refuse_to_change_them(
    postgresql, archive_postgresql, tmp_path, capsys
):
    dsn = postgresql.dsn_with_schema()
    add_server(dsn, archive_postgresql.dsn())
    late = [message(at=OLD + timedelta(seconds=30), resource_id="late")]
    await archived_week(dsn, late=late)
    meter_db = in_process(dsn, tmp_path / "meter.toml", capsys)
    await deferToThread(archive_postgresql.stop)
    try:
        assert (await recorded_as_lost(meter_db))[0] == 0
        # The server is away, and has nothing that is needed any more.
        _, states = await archive_states(meter_db)
        assert "could not connect" in states["cold"]
        report = json.loads((await meter_db("status", "--json"))[1])
        assert [(each["week"], each["samples"], each["audit_entry"]) for each in report["lost_weeks"]] == [
            (str(WEEK), 300, 1)
        ]
        partitions = json.loads((await meter_db("partitions", "--json"))[1])["partitions"]
        assert [each["archive"][:5] for each in partitions if each["archive"]] == ["lost,"]
        for refused in (["unarchive", str(WEEK)], ["unpack", str(WEEK)]):
            status, out, errors = await meter_db(*refused)
            assert (status in (1, 3), "lost, recorded on" in out + errors) == (True, True), (out, errors)
        administration = Administration(reactor, dsn, clock=reactor)
        await administration.open()
        try:
            act = Act(who="me", reason="wrong", keys=KEYS.keys)
            voided = await administration.void(Selection(ids=[late[0].message_id]), act)
            assert (voided.samples, ["are lost" in text for _, text in voided.problems]) == (0, [True])
        finally:
            administration.close()
        assert (await meter_db("archive-server", "remove", "cold"))[0] == 0
        status, _, _ = await meter_db("status", "--json")
        assert status == 0

        options = VerifyOptions()
        options.parseOptions(["--config", str(tmp_path / "meter.toml")])
        status = await status_of(verify(reactor, options))
        out, _ = capsys.readouterr()
        assert "LOST" in out
        assert f"the samples of the week of {WEEK} are lost" in out
        assert "300 lost" in out

        async with running(dsn, retention=Retention(days=14)) as store:
            await store.maintenance.run()
            assert postgresql.execute("SELECT FROM archived_week UNION ALL SELECT FROM archive_removal", dsn) == []
            assert len(await store.samples(SampleFilter(), 1000)) == 20
    finally:
        await deferToThread(archive_postgresql.start)
