"""Which events of libvirt change a state; the sequences are those of libvirt 9.0 with QEMU."""

from __future__ import annotations

import pytest

from meter.hypervisor.events import lifecycle_event
from meter.hypervisor.state_changes import StateChanges
from meter.interfaces import Domain

DEFINED = (0, 0)
BOOTED, ARRIVED, RESTORED = (2, 0), (2, 1), (2, 2)
PAUSED, FAILED_DISK = (3, 0), (3, 2)
UNPAUSED, RESUMED_HERE, RESUMED_FROM_SNAPSHOT = (4, 0), (4, 1), (4, 2)
SHUT_DOWN, DESTROYED, SAVED = (5, 0), (5, 1), (5, 4)
SHUTTING_DOWN = (6, 1)


def new_events(state_changes: StateChanges, *events: tuple[int, int], uuid: str = "u") -> list[str]:
    changes = [lifecycle_event(uuid, "web", 0.0, event, detail) for event, detail in events]
    return [change.description for change in changes if state_changes.is_new(change)]


def domain(state: int, uuid: str = "u") -> Domain:
    return Domain(uuid, "web", "<domain/>", {"state.state": state})


@pytest.fixture
def state_changes() -> StateChanges:
    state_changes = StateChanges()
    state_changes.read([])
    return state_changes


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([DEFINED, UNPAUSED, BOOTED], ["started (booted)"]),
        ([BOOTED, UNPAUSED], ["started (booted)"]),
        ([RESTORED, RESUMED_FROM_SNAPSHOT], ["started (restored)"]),
        ([ARRIVED, RESUMED_HERE], ["resumed (migrated)"]),
        ([PAUSED, UNPAUSED], ["suspended (paused)", "resumed (unpaused)"]),
        ([FAILED_DISK, PAUSED], ["suspended (input/output error)"]),
        ([SHUTTING_DOWN, SHUT_DOWN], ["shutting down (by guest)", "stopped (shut down)"]),
        ([BOOTED, PAUSED, UNPAUSED], ["started (booted)", "suspended (paused)", "resumed (unpaused)"]),
        ([PAUSED, SAVED, RESTORED], ["suspended (paused)", "stopped (saved)", "started (restored)"]),
    ],
)
def test_state_change_is_new_once(
    state_changes: StateChanges, events: list[tuple[int, int]], expected: list[str]
) -> None:
    assert new_events(state_changes, *events) == expected


def test_quick_start_stop_and_start_are_three_changes(state_changes: StateChanges) -> None:
    assert new_events(state_changes, UNPAUSED, BOOTED, DESTROYED, UNPAUSED, BOOTED) == [
        "started (booted)",
        "stopped (destroyed)",
        "started (booted)",
    ]


def test_start_after_a_missed_stop_is_new(state_changes: StateChanges) -> None:
    assert new_events(state_changes, UNPAUSED, BOOTED, UNPAUSED, BOOTED) == ["started (booted)", "started (booted)"]


def test_domains_are_tracked_separately(state_changes: StateChanges) -> None:
    assert (
        new_events(state_changes, BOOTED, uuid="a") + new_events(state_changes, UNPAUSED, BOOTED, uuid="b")
        == ["started (booted)"] * 2
    )


def test_domain_that_was_read_as_paused_may_be_resumed() -> None:
    state_changes = StateChanges()
    state_changes.read([domain(3)])
    assert new_events(state_changes, UNPAUSED, UNPAUSED) == ["resumed (unpaused)"]


def test_domain_may_have_been_paused_before_the_first_reading() -> None:
    assert new_events(StateChanges(), UNPAUSED) == ["resumed (unpaused)"]
    assert new_events(StateChanges(), BOOTED, UNPAUSED) == ["started (booted)"]


@pytest.mark.parametrize("state", [1, 5])
def test_reading_older_than_a_pause_does_not_hide_the_resume(state_changes: StateChanges, state: int) -> None:
    new_events(state_changes, BOOTED, PAUSED)
    state_changes.read([domain(state)])
    assert new_events(state_changes, UNPAUSED) == ["resumed (unpaused)"]


def test_reading_older_than_a_resume_does_not_hide_the_next_pause(state_changes: StateChanges) -> None:
    new_events(state_changes, BOOTED, PAUSED, UNPAUSED)
    state_changes.read([domain(3)])
    assert new_events(state_changes, PAUSED) == ["suspended (paused)"]


def test_missing_domains_are_forgotten(state_changes: StateChanges) -> None:
    new_events(state_changes, PAUSED)
    state_changes.read([])
    assert new_events(state_changes, UNPAUSED, PAUSED) == ["suspended (paused)"]
