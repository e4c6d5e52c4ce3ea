"""Which events of libvirt tell of a change; the sequences are those of libvirt 9.0 with QEMU."""

from __future__ import annotations

import pytest

from meter.hypervisor.events import lifecycle_change
from meter.hypervisor.news import News
from meter.interfaces import Domain

DEFINED = (0, 0)
BOOTED, ARRIVED, RESTORED = (2, 0), (2, 1), (2, 2)
PAUSED, FAILED_DISK = (3, 0), (3, 2)
UNPAUSED, RESUMED_HERE, RESUMED_FROM_SNAPSHOT = (4, 0), (4, 1), (4, 2)
SHUT_DOWN, DESTROYED, SAVED = (5, 0), (5, 1), (5, 4)
SHUTTING_DOWN = (6, 1)


def told(news: News, *events: tuple[int, int], uuid: str = "u") -> list[str]:
    changes = [lifecycle_change(uuid, "web", 0.0, event, detail) for event, detail in events]
    return [change.words for change in changes if news.is_news(change)]


def domain(state: int, uuid: str = "u") -> Domain:
    return Domain(uuid, "web", "<domain/>", {"state.state": state})


@pytest.fixture
def news() -> News:
    news = News()
    news.read([])
    return news


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
def test_each_change_of_state_is_told_once(news: News, events: list[tuple[int, int]], expected: list[str]) -> None:
    assert told(news, *events) == expected


def test_a_quick_start_stop_and_start_is_three_changes(news: News) -> None:
    assert told(news, UNPAUSED, BOOTED, DESTROYED, UNPAUSED, BOOTED) == [
        "started (booted)",
        "stopped (destroyed)",
        "started (booted)",
    ]


def test_a_start_after_a_stop_that_nobody_told_of_is_told(news: News) -> None:
    assert told(news, UNPAUSED, BOOTED, UNPAUSED, BOOTED) == ["started (booted)", "started (booted)"]


def test_domains_are_told_apart(news: News) -> None:
    assert told(news, BOOTED, uuid="a") + told(news, UNPAUSED, BOOTED, uuid="b") == ["started (booted)"] * 2


def test_a_domain_that_was_found_paused_may_be_resumed() -> None:
    news = News()
    news.read([domain(3)])
    assert told(news, UNPAUSED, UNPAUSED) == ["resumed (unpaused)"]


def test_before_the_first_reading_any_domain_may_have_been_paused() -> None:
    assert told(News(), UNPAUSED) == ["resumed (unpaused)"]
    assert told(News(), BOOTED, UNPAUSED) == ["started (booted)"]


@pytest.mark.parametrize("state", [1, 5])
def test_a_reading_that_is_older_than_the_pause_does_not_hide_the_resumption(news: News, state: int) -> None:
    told(news, BOOTED, PAUSED)
    news.read([domain(state)])
    assert told(news, UNPAUSED) == ["resumed (unpaused)"]


def test_a_reading_that_is_older_than_the_resumption_does_not_hide_the_next_pause(news: News) -> None:
    told(news, BOOTED, PAUSED, UNPAUSED)
    news.read([domain(3)])
    assert told(news, PAUSED) == ["suspended (paused)"]


def test_domains_that_are_gone_are_forgotten(news: News) -> None:
    told(news, PAUSED)
    news.read([])
    assert told(news, UNPAUSED, PAUSED) == ["suspended (paused)"]
