"""The time in a state under a flavor, from what Nova said of an instance: heard, missed, repeated and late."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest

from meter.completeness.segments import Segment
from meter.completeness.segments import seconds_by_state_and_flavor
from meter.completeness.segments import segments

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


@dataclass(frozen=True)
class Said:
    timestamp: datetime
    metadata: dict[str, Any]


def said(
    minutes: float,
    event: str,
    state: str = "active",
    flavor: str = "small",
    launched: float | None = 0,
    deleted: float | None = None,
) -> Said:
    return Said(
        at(minutes),
        {
            "event_type": f"compute.instance.{event}",
            "state": state,
            "flavor": {"name": flavor},
            "launched_at": "" if launched is None else at(launched).isoformat(),
            "deleted_at": "" if deleted is None else at(deleted).isoformat(),
        },
    )


LIFE = [
    said(0, "create.end"),
    said(10, "power_off.end", "stopped"),
    said(30, "power_on.end"),
    said(40, "resize.confirm.end", flavor="large", launched=40),
    said(60, "shutdown.end", flavor="large", launched=40),
    said(60, "delete.end", "deleted", flavor="large", launched=40, deleted=60),
]
SEGMENTS = [
    Segment("active", "small", at(0), at(10)),
    Segment("stopped", "small", at(10), at(30)),
    Segment("active", "small", at(30), at(40)),
    Segment("active", "large", at(40), at(60)),
]


def test_create_stop_start_resize_and_delete_each_end_a_segment_and_begin_the_next() -> None:
    assert segments(LIFE) == SEGMENTS


def test_the_order_and_repetition_of_what_is_heard_change_nothing() -> None:
    for seed in range(20):
        mixed = LIFE * 2
        random.Random(seed).shuffle(mixed)
        assert segments(mixed) == SEGMENTS


def test_what_lasts_has_no_end() -> None:
    assert segments(LIFE[:2]) == [SEGMENTS[0], Segment("stopped", "small", at(10))]


def test_the_seconds_of_a_month_are_cut_at_its_ends() -> None:
    assert seconds_by_state_and_flavor(segments(LIFE), at(5), at(50)) == {
        ("active", "small"): 15 * 60,
        ("stopped", "small"): 20 * 60,
        ("active", "large"): 10 * 60,
    }
    assert seconds_by_state_and_flavor(segments(LIFE[:1]), at(5), at(50)) == {("active", "small"): 45 * 60}


def test_a_late_word_does_not_bring_a_deleted_instance_back() -> None:
    late = [said(61, "update"), said(75, "volume.detach", launched=40), said(90, "exists", flavor="large", launched=40)]
    assert segments([*LIFE, *late]) == SEGMENTS


def test_an_audit_tells_of_a_creation_that_nobody_heard() -> None:
    assert segments([said(60, "exists", launched=-30)]) == [Segment("active", "small", at(-30))]


def test_an_audit_tells_of_a_resize_that_nobody_heard() -> None:
    heard = [said(0, "create.end"), said(60, "exists", flavor="large", launched=40)]
    assert segments(heard) == [Segment("active", "small", at(0), at(40)), Segment("active", "large", at(40))]


def test_an_audit_tells_of_a_stop_at_the_latest_time_it_may_have_been() -> None:
    heard = [said(0, "create.end"), said(60, "exists", "stopped")]
    assert segments(heard) == [Segment("active", "small", at(0), at(60)), Segment("stopped", "small", at(60))]


@pytest.mark.parametrize("state", ["shelved_offloaded", "error", "stopped"])
def test_an_audit_tells_of_a_launch_that_nobody_heard(state: str) -> None:
    heard = [said(0, "create.end"), said(10, "shelve_offload.end", state), said(60, "exists", launched=25)]
    assert segments(heard) == [
        Segment("active", "small", at(0), at(10)),
        Segment(state, "small", at(10), at(25)),
        Segment("active", "small", at(25)),
    ]


def test_a_stop_that_nobody_heard_after_a_launch_that_nobody_heard_is_as_late_as_it_may_have_been() -> None:
    heard = [said(0, "create.end"), said(60, "exists", "stopped", launched=25)]
    assert segments(heard) == [Segment("active", "small", at(0), at(60)), Segment("stopped", "small", at(60))]


@pytest.mark.parametrize("flavor", ["small", "large"])
def test_an_audit_that_was_sent_after_a_change_does_not_move_it_to_the_end_of_its_period(flavor: str) -> None:
    """Nova sends audits some minutes after the end of their period, with the state of then."""
    heard = [
        said(0, "create.end"),
        said(60, "exists", "stopped", flavor),
        said(65, "power_off.end", "stopped", flavor),
        said(120, "exists", flavor=flavor),
        said(122, "volume.attach", "stopped", flavor),
        said(125, "power_on.end", flavor=flavor),
    ]
    assert segments(heard) == [
        Segment("active", "small", at(0), at(65)),
        Segment("stopped", flavor, at(65), at(125)),
        Segment("active", flavor, at(125)),
    ]


def test_an_audit_is_believed_where_the_change_was_heard_more_than_an_hour_later() -> None:
    heard = [said(0, "create.end"), said(60, "exists", "stopped"), said(121, "pause.end", "stopped")]
    assert segments(heard) == [Segment("active", "small", at(0), at(60)), Segment("stopped", "small", at(60))]


def test_an_audit_tells_of_a_deletion_that_nobody_heard() -> None:
    heard = [said(0, "create.end"), said(60, "exists", "deleted", deleted=25)]
    assert segments(heard) == [Segment("active", "small", at(0), at(25))]


def test_a_change_that_is_the_first_word_says_nothing_of_the_time_before() -> None:
    assert segments([said(10, "power_off.end", "stopped")]) == [Segment("stopped", "small", at(10))]


def test_of_an_instance_that_was_only_heard_to_end_the_time_is_known_but_not_the_state() -> None:
    assert segments([said(60, "delete.end", "deleted", deleted=60)]) == [Segment("unknown", "small", at(0), at(60))]
    assert segments([said(60, "delete.end", "deleted", launched=None, deleted=60)]) == []


def test_nothing_heard_is_no_segment() -> None:
    assert segments([]) == []


@pytest.mark.parametrize("metadata", [{}, {"state": 7, "flavor": "small", "launched_at": "soon", "deleted_at": []}])
def test_metadata_that_makes_no_sense_is_survived(metadata: dict[str, Any]) -> None:
    named = metadata | {"event_type": "compute.instance.update"}
    assert segments([Said(NOON, named)]) == [Segment("unknown", "unknown", NOON)]


def test_what_a_hypervisor_says_of_an_instance_changes_nothing() -> None:
    polled = [Said(at(minutes), {"status": "running", "state": "running"}) for minutes in range(-5, 70, 5)]
    assert segments(LIFE + polled) == SEGMENTS
    assert segments(polled) == []


def test_segments_follow_each_other_without_gaps_whatever_is_missed() -> None:
    for kept in itertools.product([True, False], repeat=len(LIFE)):
        found = segments(list(itertools.compress(LIFE, kept)))
        assert all(one.ended == other.began for one, other in itertools.pairwise(found))
        assert all(each.ended is None or each.began <= each.ended for each in found)
