"""Lives: notifications alone, polls alone, and both give the same segments; and what contradicts is resolved by rules."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.completeness.lives.lives import life
from meter.completeness.lives.observation import Contradiction
from meter.completeness.lives.observation import Life
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.observation import Observation
from meter.completeness.lives.observations import observation_of_samples
from meter.completeness.lives.observations import observations_of_report

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
INTERVAL = 300.0
VOLUME, INSTANCE = KINDS["volume"], KINDS["instance"]


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def event(minutes: float, state: str | None = None, *, exists: bool = True, **changes: Any) -> Observation:
    return Observation(
        at=at(minutes),
        exists=exists,
        told_by="event",
        state=state,
        notified=True,
        uncertainty=0.0,
        **changes,
    )


def audit(minutes: float, state: str | None = None, **changes: Any) -> Observation:
    return replace(event(minutes, state, **changes), told_by="audit", uncertainty=None)


def poll(first: float, last: float | None = None, state: str | None = None, **changes: Any) -> Observation:
    return Observation(
        at=at(first),
        until=at(first if last is None else last),
        **{"exists": True, "told_by": "poll", "state": state, "interval": INTERVAL, **changes},
    )


def gone(minutes: float, **changes: Any) -> Observation:
    return poll(minutes, exists=False, **changes)


def lived(kind: ResourceKind, *told: Observation, now: float = 600) -> list[tuple[Any, ...]]:
    """The segments as state, minutes of begin and end, and who told both."""
    return brief(life(kind, told, at(now)))


def brief(found: Life) -> list[tuple[Any, ...]]:
    return [
        (
            each.state,
            (each.began - NOON) / timedelta(minutes=1),
            None if each.ended is None else (each.ended - NOON) / timedelta(minutes=1),
            each.began_told_by,
            each.ended_told_by,
        )
        for each in found.segments
    ]


# --- the same life from each source --------------------------------------------------------------------------------

STATES = {
    "instance": ("active", "stopped", "paused", "suspended"),
    "loadbalancer": ("ACTIVE", "ERROR", "PENDING_UPDATE"),
    "floating_ip": ("ACTIVE", "DOWN"),
}
PREFIX = {"instance": "compute.instance", "floating_ip": "floatingip", "lb_pool": "pool", "lb_vip": "vip"}


@dataclass(frozen=True)
class Period:
    """A part of a true life, from ``began`` to ``ended``."""

    began: datetime
    ended: datetime | None
    state: str
    size: int
    project: str


@st.composite
def stories(draw: st.DrawFn) -> tuple[ResourceKind, list[Period]]:
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    states = STATES.get(kind.name, ("available", "in-use", "error"))
    # Changes that polls can tell apart are further apart than two intervals.
    steps = draw(st.lists(st.integers(601, 9_000), min_size=1, max_size=5))
    times = [NOON + timedelta(seconds=each) for each in itertools.accumulate(steps)]
    ends: list[datetime | None] = [*times[1:], draw(st.sampled_from([None, times[-1] + timedelta(seconds=1234)]))]
    periods: list[Period] = []
    for began, ended in zip(times, ends, strict=True):
        project = draw(st.sampled_from(["p1", "p2"])) if kind.inventory else "p1"
        now = Period(began, ended, draw(st.sampled_from(states)), draw(st.integers(1, 3)), project)
        if not kind.sizing and kind.flavor is None:
            now = replace(now, size=0)
        if periods and replace(periods[-1], began=began, ended=ended) == now:
            periods[-1] = replace(periods[-1], ended=ended)
        else:
            periods.append(now)
    return kind, periods


def run_of(kind: ResourceKind, meter: str, first: datetime, last: datetime, period: Period, **more: Any) -> SampleRun:
    metadata = {kind.state[0]: period.state, kind.named[0]: "name", **more}
    if kind.flavor:
        metadata["flavor"] = {"name": f"m{period.size}"}
    return SampleRun(
        meter=meter,
        resource_id="r",
        user_id="u",
        project_id=period.project,
        source="openstack",
        interval=0.0 if "event_type" in more else INTERVAL,
        first=first,
        last=last,
        volume=period.size if meter in kind.sizing else 1,
        metadata=metadata,
    )


def told_by_notifications(kind: ResourceKind, periods: list[Period]) -> list[Observation]:
    prefix = PREFIX.get(kind.name, kind.name)
    runs = []
    for n, each in enumerate(periods):
        name = f"{prefix}.update.end" if n else f"{prefix}.create.end"
        # The first meter of the central agent's own is not one of notifications, and the other way round.
        runs += [run_of(kind, meter, each.began, each.began, each, event_type=name) for meter in kind.meters[:2]]
    last = periods[-1]
    if last.ended is not None:
        runs += [
            replace(run_of(kind, meter, last.ended, last.ended, last, event_type=f"{prefix}.delete.end"), volume=0)
            for meter in (*kind.counting, *kind.sizing)
        ]
    return [told for run in runs if (told := observation_of_samples(kind, run)) is not None]


def told_by_audits(kind: ResourceKind, periods: list[Period], until: datetime) -> list[Observation]:
    told = []
    for hour in range(1, int((until - NOON) / timedelta(hours=1))):
        ending = NOON + timedelta(hours=hour)
        for each in periods:
            if each.began <= ending and (each.ended is None or ending < each.ended):
                run = run_of(kind, kind.meters[0], ending, ending, each, event_type="x.exists")
                told.append(observation_of_samples(kind, run))
    return [each for each in told if each is not None]


def told_by_polls(kind: ResourceKind, periods: list[Period], phase: float, until: datetime) -> list[Observation]:
    """The runs of samples that polls make, and what the cycle reports of the same agent list."""
    polls = itertools.takewhile(
        lambda when: when < until, (NOON + timedelta(seconds=phase + n * INTERVAL) for n in itertools.count())
    )
    found: dict[int, list[datetime]] = {}
    after: list[datetime] = []
    for when in polls:
        now = [n for n, each in enumerate(periods) if each.began <= when and (each.ended is None or when < each.ended)]
        if now:
            found.setdefault(now[0], []).append(when)
        elif found:
            after.append(when)
    created = {"created_at": periods[0].began.isoformat()} if kind.inventory else {}
    runs = [
        run_of(kind, meter, times[0], times[-1], periods[n], **created)
        for n, times in found.items()
        for meter in kind.meters
        if meter != "power.state"
    ]
    told = [each for run in runs if (each := observation_of_samples(kind, run)) is not None]
    if found:
        seen = list(itertools.chain(*found.values()))
        listed = ListedTime(
            agent="meter-central@c1",
            host="",
            pollster="volume",
            resource_id="r",
            project_id=periods[-1].project if len({each.project for each in periods}) == 1 else None,
            interval=INTERVAL,
            first=seen[0],
            last=seen[-1],
            gone=after[0] if len(after) >= 2 else None,
            unlisted_seconds=INTERVAL,
        )
        told += observations_of_report(listed)
    return told


def assert_is(found: Life, kind: ResourceKind, truth: list[Period], within: float) -> None:
    tolerance = timedelta(seconds=within)
    assert len(found.segments) == len(truth)
    for each, period in zip(found.segments, truth, strict=True):
        assert (each.state, each.project_id) == (period.state, period.project)
        if kind.flavor:
            assert each.flavor == f"m{period.size}"
        if kind.sizing:
            assert each.size == period.size
        assert timedelta() <= each.began - period.began <= tolerance
        assert each.began_within is not None
        assert each.began - period.began <= timedelta(seconds=each.began_within) <= tolerance
        assert (each.ended is None) == (period.ended is None)
        if each.ended is not None and period.ended is not None:
            assert timedelta() <= each.ended - period.ended <= tolerance
            assert each.ended_within is not None
            assert each.ended - period.ended <= timedelta(seconds=each.ended_within) <= tolerance


@given(stories(), st.integers(0, 299), st.randoms(use_true_random=False))
# Created at the end of an audit period: the audit has the same time, and must not begin the life.
@example((VOLUME, [Period(at(60), None, "available", 1, "p1")]), 0, random.Random(0))
@example(
    (VOLUME, [Period(at(60), at(120), "available", 1, "p1"), Period(at(120), None, "in-use", 2, "p1")]),
    0,
    random.Random(0),
)
def test_notifications_polls_and_both_give_the_same_segments(
    story: tuple[ResourceKind, list[Period]], phase: int, order: random.Random
) -> None:
    kind, truth = story
    now = (truth[-1].ended or truth[-1].began) + timedelta(hours=1)
    notified, polled = told_by_notifications(kind, truth), told_by_polls(kind, truth, phase, now)
    audited = told_by_audits(kind, truth, now)
    sources: list[tuple[list[Observation], float]] = []
    if kind.name != "loadbalancer":  # Octavia's notifications are not metered
        sources += [(notified, 0.0), ([*notified, *audited], 0.0)]
    if kind.polled:
        sources += [(polled, INTERVAL)]
        if sources[0][1] == 0.0:
            sources += [([*notified, *polled], 0.0), ([*notified, *polled, *audited], 0.0)]
    for told, within in sources:
        found = life(kind, told, now)
        assert_is(found, kind, truth, within)
        assert found.contradictions == () or found.contradictions == []
        shuffled = told * 2
        order.shuffle(shuffled)
        assert life(kind, shuffled, now) == found


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 200), st.integers(0, 9)), max_size=30))
def test_whatever_is_told_segments_follow_each_other(drawn: list[tuple[int, int, int]]) -> None:
    states = (None, "active", "stopped", "error")
    told = []
    for minute, length, what in drawn:
        state = states[what % 4]
        told.append(
            (
                event(minute, state),
                event(minute, state, exists=False),
                audit(minute, state, since=at(minute - length)),
                poll(minute, minute + length, state, teller=str(length % 2)),
                gone(minute, teller=str(length % 2)),
                poll(minute, minute + length, told_by="report"),
                gone(minute, told_by="report"),
                poll(minute, state=state, told_by="event", uncertainty=0.0),
                event(minute, state, created_at=at(minute - length)),
                poll(minute, minute + length, project_id=str(length)),
            )[what]
        )
    for kind in (VOLUME, INSTANCE):
        found = life(kind, told, at(1000)).segments
        for one, other in itertools.pairwise(found):
            assert one.ended is not None
            assert one.ended <= other.began
            assert one.ended == other.began or (kind is INSTANCE and not any(each.notified for each in told))
        assert all(each.ended is None or each.began < each.ended for each in found)
        assert all(within is None or within >= 0 for each in found for within in (each.began_within, each.ended_within))


# --- rules ---------------------------------------------------------------------------------------------------------


def test_event_is_exact_and_poll_to_one_interval() -> None:
    [first, second] = life(
        VOLUME, [event(0, "available"), poll(2, 32, "available"), poll(37, 60, "in-use")], at(62)
    ).segments
    assert (first.began_told_by, first.began_within) == ("event", 0.0)
    assert (first.ended_told_by, first.ended_within, second.ended) == ("poll", INTERVAL, None)


def test_change_that_is_taken_back_at_the_same_time_divides_nothing() -> None:
    told = event(0, "in-use"), event(10, "available"), event(10, "in-use"), event(20, "available")
    assert [each[:3] for each in lived(VOLUME, *told)] == [("in-use", 0, 20), ("available", 20, None)]


def test_event_beats_polls_within_one_interval() -> None:
    # The list of the service was a little older than the event, or newer.
    told = [
        event(0, "available"),
        poll(5, 20, "available"),
        event(24, "in-use"),
        poll(25, state="available"),
        poll(30, 60, "in-use"),
    ]
    assert lived(VOLUME, *told) == [("available", 0, 24, "event", "event"), ("in-use", 24, None, "event", None)]
    early = [event(0, "available"), poll(5, 20, "available"), poll(22, 60, "in-use"), event(24, "in-use")]
    assert lived(VOLUME, *early) == [("available", 0, 24, "event", "event"), ("in-use", 24, None, "event", None)]


def test_event_beats_what_is_told_at_the_same_time() -> None:
    told = [audit(0, "available"), poll(0, 30, "available"), event(0, "available"), poll(0, 30, told_by="report")]
    [segment] = life(VOLUME, told, at(31)).segments
    assert (segment.began_told_by, segment.began_within) == ("event", 0.0)


def test_polls_repair_what_no_event_told() -> None:
    told = [event(0, "available"), poll(5, 20, "available"), poll(25, 60, "in-use"), event(90, exists=False)]
    assert lived(VOLUME, *told) == [("available", 0, 25, "event", "poll"), ("in-use", 25, 90, "poll", "event")]


def test_polls_that_go_on_to_differ_from_an_event_beat_it_after_one_interval() -> None:
    assert lived(VOLUME, event(0, "available"), poll(2, 60, "in-use")) == [
        ("available", 0, 5, "event", "poll"),
        ("in-use", 5, None, "poll", None),
    ]


def test_deleted_stays_deleted_whatever_arrives_late() -> None:
    late = [event(61, "available"), poll(62, state="available"), audit(90, "available")]
    found = life(VOLUME, [event(0, "available"), event(60, exists=False), *late], at(200))
    assert brief(found) == [("available", 0, 60, "event", "event")]
    assert list(found.contradictions) == []
    # A list that goes on to have it is told.
    found = life(VOLUME, [event(0, "available"), event(60, exists=False), poll(5, 180, "available")], at(200))
    assert brief(found) == [("available", 0, 60, "event", "event")]
    assert list(found.contradictions) == [Contradiction(at(60), "poll", True, "event", at(60))]


def test_audit_that_says_alive_does_not_beat_the_list_of_the_service() -> None:
    told = [event(0, "available"), poll(5, 50, "available"), gone(55, told_by="report"), audit(180, "available")]
    found = life(VOLUME, told, at(200))
    assert brief(found) == [("available", 0, 55, "event", "report")]
    assert found.segments[-1].ended_within == INTERVAL
    assert list(found.contradictions) == [Contradiction(at(180), "audit", True, "report", at(55))]


def test_resource_with_an_id_that_is_never_reused_existed_all_the_time() -> None:
    told = [poll(0, 50, "available"), gone(55, told_by="report"), poll(70, 100, "available")]
    found = life(VOLUME, told, at(101))
    assert [each[:3] for each in brief(found)] == [("available", 0, None)] or "unknown" in str(found)
    assert list(found.contradictions) == [Contradiction(at(55), "report", False, "poll", at(70))]


def test_transfer_changes_the_owner_and_begins_a_segment() -> None:
    told = [event(0, "available", project_id="p1", size=10), event(30, "available", project_id="p2", user_id="u2")]
    [first, second] = life(VOLUME, told, at(60)).segments
    assert (first.project_id, first.ended, second.project_id, second.began) == ("p1", at(30), "p2", at(30))
    assert (second.user_id, second.size) == ("u2", 10)


def test_size_changes_begin_a_segment() -> None:
    told = [poll(0, 20, "available", size=10), poll(25, 60, "available", size=20)]
    assert [(each.size, each.began) for each in life(VOLUME, told, at(61)).segments] == [(10, at(0)), (20, at(25))]


def test_silent_agent_ends_nothing_and_the_state_is_unknown() -> None:
    told = [poll(0, 50, "available", size=10), poll(110, 150, "available", size=10)]
    found = life(VOLUME, told, at(300)).segments
    assert brief(Life(found)) == [
        ("available", 0, 55, "poll", "silence"),
        ("unknown", 55, 110, "silence", "poll"),
        ("available", 110, 155, "poll", "silence"),
        ("unknown", 155, None, "silence", None),
    ]
    assert {each.size for each in found} == {10}


def test_silence_of_polls_does_not_matter_where_notifications_tell() -> None:
    told = [event(0, "available"), poll(1, 50, "available"), poll(210, 250, "available")]
    assert lived(VOLUME, *told) == [("available", 0, None, "event", None)]


def test_name_and_user_are_those_of_then() -> None:
    told = [event(0, "available", name="a"), event(5, "available", name="b"), event(10, "in-use", name="c")]
    assert [each.name for each in life(VOLUME, told, at(60)).segments] == ["b", "c"]


# --- instances of Nova on hosts ------------------------------------------------------------------------------------


def test_shelved_instance_is_on_no_host_and_exists() -> None:
    told = [
        event(0, "active"),
        poll(1, 29, "active", teller="hv1"),
        event(30, "shelved_offloaded"),
        gone(30, teller="hv1"),
        event(90, "active"),
        poll(91, 120, "active", teller="hv2"),
    ]
    found = life(INSTANCE, told, at(121))
    assert [each[:3] for each in brief(found)] == [
        ("active", 0, 30),
        ("shelved_offloaded", 30, 90),
        ("active", 90, None),
    ]
    assert list(found.contradictions) == []


def test_event_of_libvirt_shortly_before_that_of_nova_changes_nothing() -> None:
    told = [
        domain_event(0, "active"),
        event(0.2, "active", since=at(0.1)),
        poll(5, 25, "active"),
        domain_event(29.9, "stopped"),
        event(30, "stopped"),
        poll(35, 55, "stopped"),
        gone(59.9),
        event(60, exists=False),
    ]
    assert lived(INSTANCE, *told) == [
        ("active", pytest.approx(0.1), 30, "event", "event"),
        ("stopped", 30, 60, "event", "event"),
    ]


def test_states_that_hosts_do_not_know_are_not_changed_by_polls() -> None:
    for state, shown in (
        ("rescued", "active"),
        ("resized", "active"),
        ("soft-delete", "stopped"),
        ("error", "stopped"),
    ):
        told = [event(0, "active"), event(30, state), poll(1, 29, "active"), poll(31, 120, shown)]
        assert [each[:3] for each in lived(INSTANCE, *told)] == [("active", 0, 30), (state, 30, None)]


def test_instance_whose_deletion_was_lost_ends_when_no_host_lists_it() -> None:
    told = [event(0, "active"), poll(1, 50, "active", teller="hv1"), gone(55, told_by="report", teller="hv1")]
    assert lived(INSTANCE, *told) == [("active", 0, 55, "event", "report")]
    # Nova's word that it exists stands.
    assert lived(INSTANCE, *told, audit(120, "active"))[-1][2] is None


def test_two_hosts_list_a_migrating_instance_for_a_moment_and_it_lives_once() -> None:
    for told in (
        [
            poll(0, 50, "active", teller="hv1"),
            poll(49, 120, "active", teller="hv2"),
            gone(55, told_by="report", teller="hv1"),
        ],
        [poll(0, 50, "active", teller="hv1"), gone(52, teller="hv1"), poll(57, 120, "active", teller="hv2")],
    ):
        found = life(INSTANCE, told, at(121))
        assert [each[:3] for each in brief(found)] == [("active", 0, None)]
        assert list(found.contradictions) == []


def test_domain_that_is_started_every_other_minute_has_a_life_for_each_time() -> None:
    told = []
    for n in range(3000):
        told += [poll(2 * n, state="active", teller="hv1"), gone(2 * n + 1, teller="hv1")]
    found = life(INSTANCE, told, at(10_000)).segments
    assert len(found) == 3000
    assert all(each.ended == each.began + timedelta(minutes=1) for each in found)


# --- a plain libvirt host ------------------------------------------------------------------------------------------


def domain_event(minutes: float, state: str, host: str = "hv1") -> Observation:
    return poll(minutes, state=state, told_by="event", uncertainty=0.0, teller=host)


def on(host: str, first: float, last: float, state: str) -> Observation:
    return poll(first, last, state, teller=host)


def undefined(minutes: float, host: str = "hv1") -> Observation:
    return replace(gone(minutes, teller=host), told_by="event", uncertainty=0.0)


def not_listed(minutes: float, host: str = "hv1") -> Observation:
    return gone(minutes, told_by="report", teller=host)


def test_five_domains_of_a_plain_host_live_as_recorded() -> None:
    # define, start, suspend, resume, stop, undefine
    one = [
        on("hv1", 0, 10, "stopped"),
        domain_event(12, "active"),
        on("hv1", 15, 20, "active"),
        domain_event(22, "paused"),
        domain_event(23, "active"),
        on("hv1", 25, 30, "active"),
        domain_event(31, "stopped"),
        on("hv1", 35, 60, "stopped"),
        undefined(62),
        not_listed(65),
    ]
    assert lived(INSTANCE, *one) == [
        ("stopped", 0, 12, "poll", "event"),
        ("active", 12, 22, "event", "event"),
        ("paused", 22, 23, "event", "event"),
        ("active", 23, 31, "event", "event"),
        ("stopped", 31, 62, "event", "event"),
    ]
    # live migration to another host
    two = [on("hv1", 0, 50, "active"), on("hv2", 52, 100, "active"), not_listed(55)]
    assert [each[:3] for each in lived(INSTANCE, *two, now=101)] == [("active", 0, None)]
    # the host was away for an hour, and the domain was there again
    three = [on("hv1", 0, 30, "active"), on("hv1", 90, 100, "active")]
    assert lived(INSTANCE, *three, now=101) == [
        ("active", 0, 35, "poll", "silence"),
        ("unknown", 35, 90, "silence", "poll"),
        ("active", 90, None, "poll", None),
    ]
    # the host was away for an hour, and the domain was not there again
    four = [on("hv1", 0, 30, "active"), not_listed(90)]
    [_, unknown] = life(INSTANCE, four, at(120)).segments
    assert (unknown.state, unknown.ended, unknown.ended_told_by) == ("unknown", at(90), "report")
    assert unknown.ended_within == 60 * 60
    # undefined, and defined again with the same UUID: it did not exist in between
    five = [on("hv1", 0, 30, "active"), undefined(32), on("hv1", 60, 70, "stopped")]
    assert [each[:3] for each in lived(INSTANCE, *five, now=71)] == [("active", 0, 32), ("stopped", 60, None)]


def test_last_reading_of_a_domain_does_not_revive_it() -> None:
    last = replace(domain_event(32, "stopped"), at=at(32) + timedelta(microseconds=37), until=None)
    assert [each[:3] for each in lived(INSTANCE, on("hv1", 0, 30, "active"), undefined(32), last)] == [
        ("active", 0, 32)
    ]


def test_one_cycle_without_a_domain_is_no_end() -> None:
    told = [on("hv1", 0, 60, "active"), not_listed(30)]
    assert [each[:3] for each in lived(INSTANCE, *told, now=61)] == [("active", 0, None)]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_nothing_told_gives_no_life(kind: ResourceKind) -> None:
    assert life(kind, [], NOON) == Life([], [])
    assert life(kind, [gone(0)], at(60)).segments == []


def test_seconds_are_limited_to_the_period() -> None:
    [segment] = life(VOLUME, [event(0, "available")], at(60)).segments
    assert isinstance(segment, LifeSegment)
    assert segment.seconds(at(-5), at(5)) == 300
