"""Heartbeats: what they say, when they are made, and what they do not do while the bus is away."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.logger import formatEvent
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

import meter
from meter.daemon.heartbeats import FIRST_SECONDS
from meter.daemon.heartbeats import PUBLISH_SECONDS
from meter.daemon.heartbeats import RETRY_SECONDS
from meter.daemon.heartbeats import STOP_SECONDS
from meter.daemon.heartbeats import Heartbeats
from meter.daemon.heartbeats import Identity
from meter.daemon.heartbeats import free_bytes
from meter.daemon.heartbeats import report_key
from meter.daemon.last_error import MAX_ERROR
from meter.daemon.last_error import LastError
from meter.heartbeat import HEARTBEAT_SECONDS
from meter.heartbeat import SpoolState
from meter.heartbeat import heartbeat
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from meter.report import read_report
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey

BOOT = "5b1c8bb2-6f5e-4f0e-9d37-3a8f7a1d6a11"
IDENTITY = Identity("meter-compute", "host1", BOOT, "2026-11-27T12:00:00", "tcp:8779")
KEYS = Keyring([SigningKey("k", b"a secret of thirty-two characters")])


class Bus:
    """Records what is published; ``error`` is raised instead, ``hangs`` lets it wait for ever."""

    def __init__(self):
        self.published = []
        self.error = None
        self.hangs = False

    async def publish(self, publication):
        if self.hangs:
            await Deferred()
        if self.error is not None:
            raise self.error
        self.published.append(publication)

    @property
    def heartbeats(self):
        return [heartbeat(read_report(each.body, KEYS).content) for each in self.published]


def made(clock, bus, **more):
    arguments = {"readinesses": lambda: [Readiness("bus", True, "rabbit1")], "last_error": LastError(), **more}
    return Heartbeats(IDENTITY, bus.publish, KEYS, clock, key_ids=lambda: (("k", "00ff"),), **arguments)


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield lambda: [formatEvent(each) for each in events if "heartbeat" in formatEvent(each)]
    globalLogPublisher.removeObserver(events.append)


def test_a_heartbeat_is_published_soon_after_the_start_and_then_every_minute():
    clock, bus = Clock(), Bus()
    service = made(clock, bus)
    service.startService()
    assert bus.published == []
    clock.advance(FIRST_SECONDS)
    clock.advance(HEARTBEAT_SECONDS)
    clock.advance(HEARTBEAT_SECONDS)
    assert [(each.sequence, each.clock) for each in bus.heartbeats] == [
        (1, "1970-01-01T00:00:02"),
        (2, "1970-01-01T00:01:02"),
        (3, "1970-01-01T00:02:02"),
    ]
    assert {(each.exchange, each.routing_key) for each in bus.published} == {("metering", "report.heartbeat")}
    service.stopService()


def test_it_says_who_with_what_and_how():
    spool = SpoolState(3, 100, 1000, 60.0, 5)
    service = made(Clock(), Bus(), spool=lambda: spool)
    made_now = service.heartbeat()
    assert (made_now.name, made_now.daemon, made_now.host) == ("meter-compute@host1", "meter-compute", "host1")
    assert (made_now.boot, made_now.version, made_now.started_at) == (BOOT, meter.__version__, "2026-11-27T12:00:00")
    assert (made_now.status_address, made_now.key_ids) == ("tcp:8779", (("k", "00ff"),))
    assert [(each.name, each.ready, each.reason) for each in made_now.dependencies] == [("bus", True, "rabbit1")]
    assert made_now.spool == spool
    assert not made_now.stopping


def test_the_last_heartbeat_says_that_the_daemon_stops():
    clock, bus = Clock(), Bus()
    service = made(clock, bus)
    service.startService()
    clock.advance(FIRST_SECONDS)
    stopped = service.stopService()
    assert stopped.called
    assert [each.stopping for each in bus.heartbeats] == [False, True]


def test_an_unavailable_bus_is_tried_again_sooner_and_logged_once(logged):
    clock, bus = Clock(), Bus()
    bus.error = Unavailable("connecting to rabbit1")
    service = made(clock, bus)
    service.startService()
    clock.advance(FIRST_SECONDS)
    clock.advance(RETRY_SECONDS)
    clock.advance(RETRY_SECONDS)
    assert logged() == ["no heartbeat can be published: connecting to rabbit1"]
    bus.error = None
    clock.advance(RETRY_SECONDS)
    assert [each.sequence for each in bus.heartbeats] == [4]
    assert logged()[1:] == ["heartbeats are published again"]
    service.stopService()


def test_a_bus_that_hangs_delays_neither_the_next_heartbeat_nor_the_stop():
    clock, bus = Clock(), Bus()
    bus.hangs = True
    service = made(clock, bus)
    service.startService()
    clock.advance(FIRST_SECONDS)
    clock.advance(PUBLISH_SECONDS)
    clock.advance(RETRY_SECONDS)  # the second attempt is in progress
    stopped = service.stopService()
    assert not stopped.called
    clock.advance(STOP_SECONDS)
    assert stopped.called


def test_a_stop_during_an_attempt_logs_nothing(logged):
    clock, bus = Clock(), Bus()
    bus.hangs = True
    service = made(clock, bus)
    service.startService()
    clock.advance(FIRST_SECONDS)
    bus.hangs = False
    assert service.stopService().called
    assert [each.stopping for each in bus.heartbeats] == [True]
    assert logged() == []


def test_a_key_for_all_samples_signs_reports_rather_than_one_for_some():
    some = SigningKey("some", b"s" * 32, meters=("disk.*",))
    every = SigningKey("every", b"e" * 32)
    foreign = SigningKey("foreign", b"f" * 32, schemes=("ceilometer",))
    now = datetime(2026, 11, 27, tzinfo=UTC)
    assert report_key(Keyring([foreign, some, every]), now).id == "every"
    assert report_key(Keyring([foreign, some]), now).id == "some"
    other = SigningKey("other", b"x", agents=("meter-api@*",))
    assert report_key(Keyring([other, every]), now, "meter-compute@h1").id == "every"


def test_free_bytes_of_a_directory_that_is_missing_are_unknown(tmp_path):
    assert free_bytes(tmp_path / "missing") is None
    assert free_bytes(tmp_path) >= 0


# --- the last error ------------------------------------------------------------------------------------------------


def event(level, text, **fields):
    return {"log_level": level, "log_format": text, "log_time": 0.0, **fields}


def test_the_last_error_is_the_last_event_of_that_level_with_its_exception():
    last = LastError()
    last(event(LogLevel.error, "first"))
    last(event(LogLevel.critical, "the cycle failed", log_failure=Failure(ValueError("no\nsuch domain"))))
    last(event(LogLevel.warn, "later"))
    assert last.text == "the cycle failed: ValueError: no such domain"
    assert last.at == "1970-01-01T00:00:00"


def test_the_last_error_has_no_secret_and_a_limited_length():
    last = LastError()
    last(event(LogLevel.error, "amqp://meter:hunter2@rabbit1/ refused; password=hunter2 " + "x" * 5000))
    assert "hunter2" not in last.text
    assert len(last.text) == MAX_ERROR
