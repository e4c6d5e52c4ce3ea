"""Cycle reports: what an agent says that it measured, and what it did not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred

from meter.agent import cycle_reports
from meter.agent import polling
from meter.cycle_report import REPORTS_LOST
from meter.cycle_report import CycleReport
from meter.cycle_report import InactivePollster
from meter.cycle_report import SeriesGroup
from meter.cycle_report import SkippedCycles
from meter.cycle_report import SkipReport
from meter.daemon.metrics import exposition
from meter.interfaces import IDomainPollster
from meter.interfaces import Unavailable
from meter.sample import utc_text
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.skipped_samples import ISkippedSamples
from tests.hygiene import LoggedErrors
from tests.reporting_agent import INTERVAL
from tests.reporting_agent import NOON
from tests.reporting_agent import Reconstruction
from tests.reporting_agent import RecordingBus
from tests.reporting_agent import ReportingAgent
from tests.reporting_agent import ScriptedPollster
from tests.reporting_agent import ended
from tests.reporting_agent import sample_of
from tests.reporting_agent import series_of

HALL, ATTIC = ("acme", "hall", "lamp.power"), ("acme", "attic", "lamp.power")
HALL_HEAT = ("acme", "hall", "lamp.heat")

Made = Callable[..., ReportingAgent]


@pytest.fixture
def agent_with(tmp_path: Path) -> Iterator[Made]:
    made: list[ReportingAgent] = []

    def make(*pollsters: ScriptedPollster, **more: Any) -> ReportingAgent:
        made.append(ReportingAgent(tmp_path, *pollsters, **more))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


def at(seconds: float) -> str:
    return utc_text(datetime.fromtimestamp(seconds, UTC))


def test_first_report_of_a_boot_has_all_series_and_the_later_ones_the_difference(agent_with: Made) -> None:
    lamp = ScriptedPollster(series=[HALL, HALL_HEAT, ATTIC, (None, "cellar", "lamp.power")])
    agent = agent_with(lamp)
    agent.cycle()
    agent.cycle()
    lamp.series = [HALL, HALL_HEAT, ("acme", "loft", "lamp.power")]
    agent.cycle()
    (first, second, third), messages = agent.take()

    assert (first.agent, first.boot, first.sequence, first.due) == ("meter-compute@host", "boot-1", 1, at(NOON))
    [poll] = first.polls
    assert (poll.pollster, poll.interval_seconds, poll.outcome, poll.samples, poll.whole) == (
        "lamp",
        300.0,
        "ok",
        4,
        True,
    )
    assert poll.series == (
        SeriesGroup(("lamp.power",), ("cellar",)),
        SeriesGroup(("lamp.heat", "lamp.power"), ("hall",), "acme"),
        SeriesGroup(("lamp.power",), ("attic",), "acme"),
    )
    assert (second.sequence, second.due) == (2, at(NOON + INTERVAL))
    assert (second.polls[0].series, second.polls[0].removed, second.polls[0].whole) == ((), (), False)
    assert third.polls[0].series == (SeriesGroup(("lamp.power",), ("loft",), "acme"),)
    assert series_of(third.polls[0].removed) == {ATTIC, (None, "cellar", "lamp.power")}
    assert len(messages) == 4 + 4 + 3


def test_series_are_reported_whole_once_an_hour(agent_with: Made) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL]))
    for _ in range(25):
        agent.cycle()
    reports, _ = agent.take()
    assert [report.sequence for report in reports if report.polls[0].whole] == [1, 13, 25]


def test_report_comes_after_the_samples_of_its_cycle(agent_with: Made) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL, ATTIC, HALL_HEAT]))
    agent.cycle()
    agent.bus.away = True
    assert [len(agent.run(agent.spool.oldest(10))), agent.reports_in_spool()] == [2, []]
    agent.bus.away = False
    agent.send()
    assert [each.routing_key for each in agent.bus.published][-1] == "report.cycle"
    assert len(agent.bus.published) == 3


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(Unavailable("password=hunter2 away"), "unavailable"), (RuntimeError("broken"), "error")],
)
def test_failed_poll_removes_nothing(
    agent_with: Made, failure: Exception, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "SPOOL_CHUNK_SAMPLES", 1)
    lamp = ScriptedPollster(series=[HALL, ATTIC])
    agent = agent_with(lamp)
    agent.cycle()
    lamp.series, lamp.failure = [HALL, ("acme", "loft", "lamp.power")], failure
    agent.cycle()
    lamp.failure = None
    agent.cycle()
    reports, _ = agent.take()

    failed, mended = reports[1].polls[0], reports[2].polls[0]
    assert (failed.outcome, failed.removed, failed.whole) == (outcome, (), False)
    assert series_of(failed.series) == {("acme", "loft", "lamp.power")}
    assert failed.samples == 2
    assert failed.error
    assert "hunter2" not in failed.error
    assert series_of(mended.removed) == {ATTIC}


def test_first_poll_of_a_boot_that_fails_is_not_whole(agent_with: Made) -> None:
    lamp = ScriptedPollster(series=[HALL], failure=RuntimeError("broken"))
    agent = agent_with(lamp)
    agent.cycle()
    lamp.failure = None
    agent.cycle()
    reports, _ = agent.take()
    assert [report.polls[0].whole for report in reports] == [False, True]


def test_poll_that_hangs_and_the_next_one_that_is_not_begun_are_timeouts(agent_with: Made) -> None:
    lamp = ScriptedPollster(series=[HALL])
    agent = agent_with(lamp)
    agent.cycle()

    async def hangs(_: Any) -> Any:
        for _ in range(2):
            with suppress(CancelledError):
                await Deferred()

    lamp.poll = hangs  # type: ignore[method-assign]
    for _ in range(2):
        done = Deferred.fromCoroutine(agent.polling.cycle())
        agent.clock.advance(10)
        assert done.called
    reports, _ = agent.take()
    polls = [report.polls[0] for report in reports[1:]]
    assert [(poll.outcome, poll.asked, poll.removed) for poll in polls] == [
        ("timeout", True, ()),
        ("timeout", False, ()),
    ]


def test_skipped_resource_is_named_and_still_expected(agent_with: Made) -> None:
    lamp = ScriptedPollster(series=[HALL, HALL_HEAT, ATTIC, ("other", "shed", "lamp.power")])
    agent = agent_with(lamp)
    agent.cycle()

    def skip(cycle: Any) -> None:
        taken = cycle.provider(ISkippedSamples)
        taken.samples_skipped("lamp", "no-time", 3, projects=["other"])
        taken.samples_skipped("lamp", "hung", 0, resources=["hall", "never seen"])
        taken.samples_skipped("lamp", "missing", 7)
        taken.resources_ended("lamp", "gone", ["attic"])

    lamp.series, lamp.also = [HALL], skip
    agent.cycle()
    lamp.series, lamp.also = [HALL], lambda _: None
    agent.cycle()
    reports, _ = agent.take()

    skipping, after = reports[1].polls[0], reports[2].polls[0]
    assert skipping.skipped == (
        SkipReport("hung", 0, ("hall",)),
        SkipReport("missing", 7),
        SkipReport("no-time", 3, ("shed",)),
    )
    assert skipping.removed == (SeriesGroup(("lamp.power",), ("attic",), "acme", "gone"),)
    assert ended(after) == {HALL_HEAT, ("other", "shed", "lamp.power")}
    assert after.series == (SeriesGroup(("lamp.power",), ("hall",), "acme"),)
    assert after.removed[0] == SeriesGroup(("lamp.heat", "lamp.power"), ("hall",), "acme")
    page = exposition(agent.registry).decode()
    assert 'meter_omitted_samples_total{pollster="lamp",reason="no-time"} 3.0' in page
    assert 'reason="hung"' not in page


def test_series_that_were_not_seen_since_the_start_stay_while_something_cannot_be_read(
    agent_with: Made, tmp_path: Path
) -> None:
    lamp = ScriptedPollster(series=[HALL, ATTIC])
    before = agent_with(lamp)
    before.cycle()
    before.take()
    before.close()

    def unknown(cycle: Any) -> None:
        cycle.provider(ISkippedSamples).resources_unknown("lamp", "domain hung")

    lamp.series, lamp.also = [HALL], unknown
    agent = agent_with(lamp, boot="boot-2", clock=before.clock)
    agent.cycle()
    lamp.also = lambda _: None
    agent.cycle()
    reports, _ = agent.take()
    first, second = (report.polls[0] for report in reports)
    assert first.whole
    assert series_of(first.series) == {HALL, ATTIC}
    assert first.skipped == (SkipReport("domain hung", 0, ("attic",)),)
    assert series_of(second.removed) == {ATTIC}


def test_nothing_is_called_whole_while_an_agent_without_memory_cannot_read_everything(agent_with: Made) -> None:
    lamp = ScriptedPollster(
        series=[HALL],
        also=lambda cycle: cycle.provider(ISkippedSamples).resources_unknown("lamp", "domain hung"),
    )
    agent = agent_with(lamp)
    agent.cycle()
    agent.cycle()
    lamp.also = lambda _: None
    agent.cycle()
    reports, _ = agent.take()
    assert [report.polls[0].whole for report in reports] == [False, False, True]


def test_further_sample_of_a_series_is_an_off_schedule_poll(agent_with: Made) -> None:
    lamp = ScriptedPollster()
    early = datetime.fromtimestamp(NOON - 1000, UTC)

    async def opens(cycle: Any) -> Any:
        return [sample_of(cycle, *HALL, timestamp=early), sample_of(cycle, *HALL)]

    lamp.poll = opens  # type: ignore[method-assign]
    agent = agent_with(lamp)
    agent.cycle()
    (report,), messages = agent.take()
    assert [(poll.pollster, poll.at, series_of(poll.series)) for poll in report.off_schedule] == [
        ("lamp", at(NOON - 1000), {HALL})
    ]
    assert series_of(report.polls[0].series) == {HALL}
    assert report.polls[0].samples == len(messages) == 2


def test_poll_between_cycles_is_in_the_next_report_and_ends_nothing(agent_with: Made) -> None:
    lamp = ScriptedPollster(series=[HALL, ATTIC])
    agent = agent_with(lamp)
    agent.cycle(100)
    lamp.series = [HALL]
    agent.run(agent.polling.poll_off_schedule(IDomainPollster, {}))
    agent.clock.advance(200)
    lamp.series = [HALL, ATTIC]
    agent.cycle()
    (first, second), messages = agent.take()
    assert first.off_schedule == ()
    assert [(poll.at, series_of(poll.series)) for poll in second.off_schedule] == [(at(NOON + 100), {HALL})]
    assert (second.polls[0].series, second.polls[0].removed) == ((), ())
    assert len(messages) == 5


def test_skipped_cycles_are_in_the_next_report(agent_with: Made) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL]))
    agent.reports.cycles_skipped(300.0, 2, NOON - 600, NOON - 300)
    agent.cycle()
    agent.cycle()
    (first, second), _ = agent.take()
    assert first.skipped_cycles == (SkippedCycles(300.0, 2, at(NOON - 600), at(NOON - 300)),)
    assert second.skipped_cycles == ()


def test_inactive_pollsters_are_in_the_first_report_and_in_the_whole_ones(agent_with: Made) -> None:
    off = InactivePollster("disk", True, "[plugins] disable has disk", ("disk.*",))
    agent = agent_with(ScriptedPollster(series=[HALL], failure=RuntimeError()), inactive=[off])
    agent.cycle()
    agent.cycle()
    (first, second), _ = agent.take()
    assert (first.inactive, second.inactive) == ((off,), ())


def test_new_boot_counts_from_one_and_says_what_was_confirmed(agent_with: Made) -> None:
    lamp = ScriptedPollster(series=[HALL])
    first = agent_with(lamp)
    first.cycle()
    first.cycle()
    first.send()
    first.cycle()
    first.bus.published.clear()
    first.close()

    second = agent_with(lamp, boot="boot-2", clock=first.clock)
    second.cycle()
    second.cycle()
    reports, _ = second.take()
    assert [(report.boot, report.sequence) for report in reports] == [("boot-1", 3), ("boot-2", 1), ("boot-2", 2)]
    assert reports[1].confirmed is not None
    assert (reports[1].confirmed.boot, reports[1].confirmed.sequence) == ("boot-1", 2)
    assert reports[2].confirmed is None


def test_orderly_stop_and_standby_are_reports_without_polls(agent_with: Made) -> None:
    lamp = ScriptedPollster(series=[HALL])
    agent = agent_with(lamp)
    agent.run(agent.reports.tell(standby=True))
    agent.cycle()
    agent.run(agent.reports.tell(standby=True))
    agent.cycle()
    agent.run(agent.reports.tell(stopping=True))
    reports, _ = agent.take()
    assert [report.sequence for report in reports] == [1, 2, 3, 4, 5]
    assert [(report.standby, report.stopping, len(report.polls)) for report in reports] == [
        (True, False, 0),
        (False, False, 1),
        (True, False, 0),
        (False, False, 1),
        (False, True, 0),
    ]
    assert reports[3].polls[0].whole  # the other leader's agent measured meanwhile


def test_samples_that_a_full_spool_drops_are_in_the_next_report_and_reports_are_kept(
    agent_with: Made, logged_errors: LoggedErrors
) -> None:
    lamp = ScriptedPollster(series=[("acme", f"lamp-{number}", "lamp.power") for number in range(40)])
    agent = agent_with(lamp, max_bytes=100_000)
    agent.bus.away = True
    for _ in range(6):
        agent.cycle()
    agent.bus.away = False
    reports, messages = agent.take()
    assert [report.sequence for report in reports] == [1, 2, 3, 4, 5, 6]
    dropped = [each for report in reports for each in report.dropped if each.samples]
    assert sum(each.samples for each in dropped) == 6 * 40 - len(messages) > 0
    assert {each.reason for each in dropped} == {"the spool is full"}
    assert min(each.first for each in dropped) == at(NOON)
    logged_errors.flush()


def test_samples_that_are_too_old_are_dropped_and_reports_are_kept(
    agent_with: Made, logged_errors: LoggedErrors
) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL]), max_age_seconds=1000)
    for _ in range(3):
        agent.cycle(1)
    agent.clock.advance(2000)
    agent.run(agent.spool.oldest(1))
    agent.cycle()
    reports, messages = agent.take()
    assert [report.sequence for report in reports] == [1, 2, 3, 4]
    assert len(messages) == 1
    [dropped] = reports[3].dropped
    assert (dropped.samples, dropped.first, dropped.last) == (3, at(NOON), at(NOON + 2))
    assert dropped.reason == "they exceeded the maximum age"
    logged_errors.flush()


def test_what_was_dropped_survives_a_restart(agent_with: Made, logged_errors: LoggedErrors) -> None:
    lamp = ScriptedPollster(series=[HALL])
    before = agent_with(lamp, max_age_seconds=1000)
    before.cycle()
    before.clock.advance(2000)
    before.run(before.spool.oldest(1))
    before.close()
    after = agent_with(lamp, boot="boot-2", clock=before.clock)
    after.cycle()
    reports, _ = after.take()
    assert [sum(each.samples for each in report.dropped) for report in reports] == [0, 1]
    logged_errors.flush()


def test_samples_that_the_bus_refuses_are_dropped_samples(agent_with: Made, logged_errors: LoggedErrors) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL, HALL_HEAT]))
    agent.bus.refuses = {"metering.lamp.heat"}
    agent.cycle(1000)
    agent.send()
    agent.cycle()
    reports, _ = agent.take()
    [dropped] = reports[1].dropped
    assert (dropped.samples, dropped.reason) == (1, "they cannot be published: too large")
    assert dropped.first == dropped.last == at(NOON)  # when they were spooled, not when they were refused
    assert reports[0].dropped == ()
    logged_errors.flush()


def test_sample_that_no_key_may_sign_is_reported_as_not_stored(agent_with: Made, logged_errors: LoggedErrors) -> None:
    keys = Keyring([SigningKey("k", b"secret", meters=("lamp.power",))])
    agent = agent_with(ScriptedPollster(series=[HALL, HALL_HEAT]), keys=keys)
    agent.cycle()
    (report,), messages = agent.take()
    [poll] = report.polls
    assert (poll.outcome, poll.samples, len(messages)) == ("not stored", 1, 1)
    assert series_of(poll.series) == {HALL, HALL_HEAT}
    assert "may not sign samples of the meter lamp.heat" in poll.error
    [dropped] = report.dropped
    assert (dropped.samples, dropped.first) == (1, at(NOON))
    logged_errors.flush()


def test_names_and_texts_that_are_no_unicode_do_not_stop_the_reports(
    agent_with: Made, logged_errors: LoggedErrors
) -> None:
    lamp = ScriptedPollster(
        series=[HALL, ("acme", "\ud800", "lamp.power")],
        also=lambda cycle: cycle.provider(ISkippedSamples).samples_skipped("lamp", "\ud800 bad", 1, ["\ud800"]),
    )
    agent = agent_with(lamp)
    agent.cycle()
    lamp.failure = RuntimeError("\ud800")
    agent.cycle()
    (first, second), messages = agent.take()
    assert (first.polls[0].outcome, first.polls[0].samples) == ("not stored", 1)
    assert series_of(first.polls[0].series) == {HALL}
    assert [each.reason for each in first.polls[0].skipped] == ["? bad"]
    assert second.polls[0].error == "RuntimeError: ?"
    assert len(messages) == 2
    logged_errors.flush()


def test_report_that_cannot_be_made_stops_neither_polling_nor_the_reports_after_it(
    agent_with: Made, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL]))
    agent.cycle()
    with monkeypatch.context() as patched:
        patched.setattr(cycle_reports, "report_publication", lambda *_: 1 / 0)
        agent.cycle()
    with monkeypatch.context() as patched:
        patched.setattr(agent.reports, "cycle_ended", None)
        agent.cycle()
    agent.cycle()
    reports, messages = agent.take()
    assert [report.sequence for report in reports] == [1, 2]
    assert [each.reason for each in reports[1].dropped] == [f"{REPORTS_LOST}: they cannot be made: ZeroDivisionError"]
    assert reports[1].polls[0].whole
    assert len(messages) == 4
    assert len(logged_errors.flush()) == 2


def test_reports_wait_while_no_key_may_sign_them(agent_with: Made, logged_errors: LoggedErrors) -> None:
    later = datetime.fromtimestamp(NOON + 400, UTC)
    keys = Keyring([SigningKey("k", b"secret", not_before=later)])
    agent = agent_with(ScriptedPollster(series=[HALL]), keys=keys)
    for _ in range(3):
        agent.cycle()
    reports, messages = agent.take()
    assert [report.sequence for report in reports] == [1, 2, 3]
    assert len(messages) == 1
    assert sum(each.samples for report in reports for each in report.dropped) == 2
    logged_errors.flush()


class ShortDisk:
    """Makes the spool refuse what is longer than it has room for."""

    def __init__(self, agent: ReportingAgent) -> None:
        agent.run(agent.spool.oldest(1))
        self._database = agent.spool._database
        [self._pages] = self._database.execute("PRAGMA page_count").fetchone()

    def full(self, more_pages: int = 0) -> None:
        [pages] = self._database.execute("PRAGMA page_count").fetchone()
        self._database.execute(f"PRAGMA max_page_count = {pages + more_pages}")

    def free(self) -> None:
        self._database.execute("PRAGMA max_page_count = 100000")


def test_report_that_a_full_disk_refuses_waits_and_causes_no_gap(agent_with: Made, logged_errors: LoggedErrors) -> None:
    lamp = ScriptedPollster(series=[HALL, ATTIC])
    agent = agent_with(lamp)
    agent.cycle()
    known = Reconstruction()
    known.apply(agent.take()[0][0].polls[0])
    disk = ShortDisk(agent)
    lamp.series = [("acme", f"lamp-{number}" + "x" * 50, "lamp.power") for number in range(200)]
    disk.full()
    agent.cycle()
    lamp.series = [HALL]
    agent.cycle()
    disk.free()
    agent.cycle()
    reports, messages = agent.take()
    assert [report.sequence for report in reports] == [2, 3, 4]
    lost = sum(each.samples for report in reports for each in report.dropped)
    assert lost > 0
    assert lost + len(messages) == 200 + 1 + 1
    assert reports[0].polls[0].outcome == "not stored"
    for report in reports:
        known.apply(report.polls[0])
    assert known.series["lamp"] == {HALL}
    logged_errors.flush()


def test_oldest_samples_make_room_for_a_report_on_a_full_disk(
    agent_with: Made, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("spool", "spool_database"):
        monkeypatch.setattr(f"meter.agent.{module}.PAGE_BYTES", 4096)  # few reports fill a page
    lamp = ScriptedPollster(series=[("acme", f"lamp-{number}", "lamp.power") for number in range(100)])
    agent = agent_with(lamp)
    agent.bus.away = True
    agent.cycle()
    ShortDisk(agent).full()
    lamp.series = []
    for _ in range(20):
        agent.cycle()
    ShortDisk(agent).free()
    agent.bus.away = False
    reports, messages = agent.take()
    assert [report.sequence for report in reports] == list(range(1, len(reports) + 1))
    assert len(reports) > 10
    dropped = [each for report in reports for each in report.dropped]
    assert {each.reason for each in dropped} == {"the disk is full"}
    assert sum(each.samples for each in dropped) + len(messages) == 100
    logged_errors.flush()


def test_too_many_waiting_reports_are_abandoned_oldest_first_and_that_is_told(
    agent_with: Made, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle_reports, "MAX_WAITING", 3)
    lamp = ScriptedPollster(series=[HALL])
    agent = agent_with(lamp)
    agent.cycle()
    agent.take()
    put, agent.outbox.put_report = agent.outbox.put_report, refuses  # type: ignore[method-assign]
    for number in range(6):
        lamp.series = [("acme", f"lamp-{number}", "lamp.power")]
        agent.cycle()
    agent.outbox.put_report = put  # type: ignore[method-assign]
    agent.cycle()
    reports, _ = agent.take()
    assert [report.sequence for report in reports] == [2, 3, 4, 5]
    [told] = [each for report in reports for each in report.dropped]
    assert told.reason.startswith(REPORTS_LOST)
    assert (told.first, told.last) == (at(NOON + 300), at(NOON + 900))
    assert reports[3].polls[0].whole
    assert [event["log_format"] for event in logged_errors.flush()] == [
        "cycle reports cannot be written and wait in memory: {reason}"
    ]


async def refuses(_: Any) -> bool:
    raise Unavailable("the disk is full")


def test_reports_have_a_limit_of_their_own_beyond_which_the_oldest_are_dropped_and_that_is_told(
    agent_with: Made, logged_errors: LoggedErrors
) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL]), max_bytes=50_000)
    agent.bus.away = True
    for _ in range(20):
        agent.cycle()
    agent.bus.away = False
    reports, _ = agent.take()
    sequences = [report.sequence for report in reports]
    assert sequences == list(range(sequences[0], 21))
    assert 1 < sequences[0] < 20
    told = [each for report in reports for each in report.dropped]
    assert all(each.reason.startswith(REPORTS_LOST) and each.samples == 0 for each in told)
    assert reports[-1].polls[0].whole
    logged_errors.flush()


def test_reports_that_no_collector_takes_hold_up_no_samples(agent_with: Made) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL, ATTIC, HALL_HEAT]))
    agent.bus.without_reports = True
    agent.outbox.startService()
    for _ in range(200):
        agent.cycle()
    assert len([each for each in agent.bus.published]) == 2 * 200
    assert agent.outbox.readiness().ready
    assert "200 cycle reports wait: the broker is away" in agent.outbox.readiness().reason
    agent.bus.without_reports = False
    agent.clock.advance(60)
    agent.clock.advance(60)
    assert agent.spool.reports == 0
    assert "wait" not in agent.outbox.readiness().reason
    agent.run(agent.outbox.stopService())


def test_report_with_very_many_series_is_continued_in_others(agent_with: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle_reports, "PART_BYTES", 2000)
    monkeypatch.setattr(cycle_reports, "MAX_SKIPPED", 20)
    many = [("acme", f"lamp-{number:04}", "lamp.power") for number in range(400)]
    lamp, other = ScriptedPollster(series=many), ScriptedPollster("other", series=[HALL])
    agent = agent_with(lamp, other)
    agent.cycle()
    lamp.series = []
    lamp.also = lambda cycle: cycle.provider(ISkippedSamples).samples_skipped(
        "lamp", "hung", 50, resources=[each[1] for each in many[:50]]
    )
    agent.cycle()
    reports, _ = agent.take()
    known = Reconstruction()
    skipped: list[SkipReport] = []
    for report in reports:
        assert len(msgspec.json.encode(report)) < 4000
        for poll in report.polls:
            known.apply(poll)
            if report.due == at(NOON):
                assert not (poll.whole and poll.pollster == "lamp")
            skipped += poll.skipped
    assert known.series == {"lamp": set(many[:50]), "other": {HALL}}
    assert [report.sequence for report in reports] == list(range(1, len(reports) + 1))
    assert sum(not poll.continued for report in reports for poll in report.polls) == 4
    assert sum(each.samples for each in skipped) == 50
    assert {resource for each in skipped for resource in each.resources} == {each[1] for each in many[:50]}


def test_very_many_polls_between_cycles_are_spread_over_reports(
    agent_with: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle_reports, "MAX_OFF_SCHEDULE", 2)
    lamp = ScriptedPollster(series=[HALL])
    agent = agent_with(lamp)
    for _ in range(5):
        agent.run(agent.polling.poll_off_schedule(IDomainPollster, {}))
        agent.clock.advance(1)
    agent.cycle()
    reports, _ = agent.take()
    assert [len(report.off_schedule) for report in reports] == [2, 2, 1]
    assert [len(report.polls) for report in reports] == [1, 0, 0]


def test_reports_are_made_without_state_if_it_cannot_be_read(agent_with: Made, logged_errors: LoggedErrors) -> None:
    lamp = ScriptedPollster(series=[HALL])
    agent = agent_with(lamp)
    agent.run(agent.spool.oldest(1))
    agent.spool._database.execute("INSERT INTO expected_series VALUES ('lamp', x'00ff')")
    agent.cycle()
    reports, _ = agent.take()
    assert series_of(reports[0].polls[0].series) == {HALL}


def test_spool_of_an_earlier_version_gets_the_tables_of_reports(agent_with: Made) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL]))
    agent.run(agent.spool.oldest(1))
    for table in ("spooled_report", "confirmed_report", "dropped_samples", "expected_series"):
        agent.spool._database.execute(f"DROP TABLE {table}")
    agent.close()
    agent.cycle()
    reports, messages = agent.take()
    assert (len(reports), len(messages)) == (1, 1)


def test_metrics_count_the_reports(agent_with: Made) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL]))
    agent.cycle()
    agent.take()
    page = exposition(agent.registry).decode()
    assert 'meter_cycle_reports_total{outcome="spooled"} 1.0' in page
    assert 'meter_cycle_reports_total{outcome="confirmed"} 1.0' in page


def test_resent_bus_of_another_agent_has_its_own_numbers(tmp_path: Path) -> None:
    bus = RecordingBus()
    agents = [ReportingAgent(tmp_path / name, ScriptedPollster(series=[HALL]), bus=bus, boot=name) for name in "ab"]
    found: list[CycleReport] = []
    for agent, _ in itertools.product(agents, range(2)):
        agent.cycle()
        found += agent.take()[0]
    assert [(report.boot, report.sequence) for report in found] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    for agent in agents:
        agent.close()
