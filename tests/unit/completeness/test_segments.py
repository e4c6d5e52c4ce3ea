"""Segments of an instance from Nova's notifications: received, missed, repeated and late."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest

from meter.completeness.lives.segments import Segment
from meter.completeness.lives.segments import seconds_by_state_and_flavor
from meter.completeness.lives.segments import segments

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


def test_every_change_of_state_or_flavor_ends_a_segment() -> None:
    assert segments(LIFE) == SEGMENTS


def test_order_and_repetition_of_samples_change_no_segment() -> None:
    for seed in range(20):
        mixed = LIFE * 2
        random.Random(seed).shuffle(mixed)
        assert segments(mixed) == SEGMENTS


def test_current_segment_has_no_end() -> None:
    assert segments(LIFE[:2]) == [SEGMENTS[0], Segment("stopped", "small", at(10))]


def test_seconds_are_limited_to_the_period() -> None:
    assert seconds_by_state_and_flavor(segments(LIFE), at(5), at(50)) == {
        ("active", "small"): 15 * 60,
        ("stopped", "small"): 20 * 60,
        ("active", "large"): 10 * 60,
    }
    assert seconds_by_state_and_flavor(segments(LIFE[:1]), at(5), at(50)) == {("active", "small"): 45 * 60}


def test_late_sample_does_not_revive_a_deleted_instance() -> None:
    late = [said(61, "update"), said(75, "volume.detach", launched=40), said(90, "exists", flavor="large", launched=40)]
    assert segments([*LIFE, *late]) == SEGMENTS


def test_audit_repairs_a_missed_creation() -> None:
    assert segments([said(60, "exists", launched=-30)]) == [Segment("active", "small", at(-30))]


def test_audit_repairs_a_missed_resize() -> None:
    heard = [said(0, "create.end"), said(60, "exists", flavor="large", launched=40)]
    assert segments(heard) == [Segment("active", "small", at(0), at(40)), Segment("active", "large", at(40))]


def test_audit_repairs_a_missed_stop_at_the_latest_possible_time() -> None:
    heard = [said(0, "create.end"), said(60, "exists", "stopped")]
    assert segments(heard) == [Segment("active", "small", at(0), at(60)), Segment("stopped", "small", at(60))]


@pytest.mark.parametrize("state", ["shelved_offloaded", "error", "stopped"])
def test_audit_repairs_a_missed_launch(state: str) -> None:
    heard = [said(0, "create.end"), said(10, "shelve_offload.end", state), said(60, "exists", launched=25)]
    assert segments(heard) == [
        Segment("active", "small", at(0), at(10)),
        Segment(state, "small", at(10), at(25)),
        Segment("active", "small", at(25)),
    ]


def test_audit_repairs_a_missed_stop_after_a_missed_launch() -> None:
    heard = [said(0, "create.end"), said(60, "exists", "stopped", launched=25)]
    assert segments(heard) == [Segment("active", "small", at(0), at(60)), Segment("stopped", "small", at(60))]


@pytest.mark.parametrize("flavor", ["small", "large"])
def test_audit_sent_after_a_change_does_not_move_it(flavor: str) -> None:
    """Nova sends audits some minutes after the end of their period, with the state at that time."""
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


def test_audit_is_used_if_the_change_was_notified_more_than_an_hour_later() -> None:
    heard = [said(0, "create.end"), said(60, "exists", "stopped"), said(121, "pause.end", "stopped")]
    assert segments(heard) == [Segment("active", "small", at(0), at(60)), Segment("stopped", "small", at(60))]


def test_audit_repairs_a_missed_deletion() -> None:
    heard = [said(0, "create.end"), said(60, "exists", "deleted", deleted=25)]
    assert segments(heard) == [Segment("active", "small", at(0), at(25))]


def test_first_change_begins_the_first_segment() -> None:
    assert segments([said(10, "power_off.end", "stopped")]) == [Segment("stopped", "small", at(10))]


def test_deletion_alone_gives_a_segment_of_unknown_state() -> None:
    assert segments([said(60, "delete.end", "deleted", deleted=60)]) == [Segment("unknown", "small", at(0), at(60))]
    assert segments([said(60, "delete.end", "deleted", launched=None, deleted=60)]) == []


def test_no_samples_give_no_segments() -> None:
    assert segments([]) == []


@pytest.mark.parametrize("metadata", [{}, {"state": 7, "flavor": "small", "launched_at": "soon", "deleted_at": []}])
def test_invalid_metadata_are_accepted(metadata: dict[str, Any]) -> None:
    named = metadata | {"event_type": "compute.instance.update"}
    assert segments([Said(NOON, named)]) == [Segment("unknown", "unknown", NOON)]


def test_polled_samples_change_no_segment() -> None:
    polled = [Said(at(minutes), {"status": "running", "state": "running"}) for minutes in range(-5, 70, 5)]
    assert segments(LIFE + polled) == SEGMENTS
    assert segments(polled) == []


def test_segments_have_no_gaps_whatever_is_missed() -> None:
    for kept in itertools.product([True, False], repeat=len(LIFE)):
        found = segments(list(itertools.compress(LIFE, kept)))
        assert all(one.ended == other.began for one, other in itertools.pairwise(found))
        assert all(each.ended is None or each.began <= each.ended for each in found)
