"""Whoever can cause a line of the log cannot fill the disk with it."""

from __future__ import annotations

import pytest
from twisted.logger import LogLevel
from twisted.logger import formatEvent

from meter.daemon.log_limit import LogLimit
from meter.daemon.log_window import WINDOW_SECONDS


@pytest.fixture
def log():
    """Return a function that logs to a limit of three, and the texts that have passed it."""
    texts = []
    limit = LogLimit(lambda event: texts.append(formatEvent(event)), 3)

    def write(format, at=0.0, level=LogLevel.warn, **fields):
        limit({"log_time": at, "log_level": level, "log_namespace": "meter.api", "log_format": format, **fields})

    return write, texts


def test_of_a_flood_the_first_are_logged_and_the_others_counted(log):
    write, texts = log
    for n in range(1000):
        write("request {n} refused", n=n)
    assert texts == ["request 0 refused", "request 1 refused", "request 2 refused"]
    write("request {n} refused", at=WINDOW_SECONDS, n=1000)
    assert texts[3:] == [
        "997 more events like this were not logged within 60 s: request {n} refused",
        "request 1000 refused",
    ]


def test_a_flood_of_one_kind_does_not_keep_others_from_the_log(log):
    write, texts = log
    for _ in range(10):
        write("request refused")
    write("the store is away")
    assert texts[-1] == "the store is away"


def test_information_is_not_limited(log):
    write, texts = log
    for _ in range(10):
        write("GET /v2/meters 200", level=LogLevel.info)
    assert len(texts) == 10


def test_a_clock_that_is_set_back_begins_a_new_window(log):
    write, texts = log
    for _ in range(5):
        write("refused", at=1000.0)
    write("refused", at=10.0)
    assert texts[-2:] == ["2 more events like this were not logged within 60 s: refused", "refused"]
