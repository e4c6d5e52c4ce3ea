"""Clocks, signals and stop timeouts of a daemon."""

import re
import signal
import time
from pathlib import Path

import pytest
from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock

from meter.daemon.services import wall_seconds
from meter.taps.daemon import STOP_SECONDS
from meter.taps.monotonic_clock import use_monotonic_clock
from meter.taps.signals import exit_on_second_signal

UNITS = sorted(Path(__file__).parents[3].glob("etc/systemd/*.service"))


class Reactor(ReactorBase):
    """A reactor without sockets."""

    def installWaker(self):
        pass

    def removeAll(self):
        return []


def test_timers_are_on_time_though_the_wall_clock_is_set_back(monkeypatch):
    reactor, came = Reactor(), []
    now = {"clock": 1_700_000_000.0, "since start": 5.0}
    monkeypatch.setattr(time, "time", lambda: now["clock"])
    monkeypatch.setattr(time, "monotonic", lambda: now["since start"])
    use_monotonic_clock(reactor)
    reactor.callLater(10, came.append, "due")

    now["clock"] -= 3600
    now["since start"] += 10
    reactor.runUntilCurrent()

    assert came == ["due"]
    assert reactor.seconds() == 1_700_000_010
    assert wall_seconds(reactor) == 1_700_000_000 - 3600


def test_test_clock_has_one_time_for_both():
    clock = Clock()
    clock.advance(7)

    assert wall_seconds(clock) == 7


def test_second_signal_ends_the_process(monkeypatch):
    reactor, set_to = Reactor(), {}
    monkeypatch.setattr(signal, "signal", lambda number, action: set_to.setdefault(number, action))
    exit_on_second_signal(reactor)
    assert set_to == {}

    reactor.fireSystemEvent("shutdown")

    assert set_to == {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.SIG_DFL}


def test_two_signals_at_the_same_time_count_as_one(monkeypatch):
    reactor, received = Reactor(), []
    set_to = {signal.SIGTERM: lambda number, frame: received.append(number), signal.SIGINT: signal.SIG_IGN}
    monkeypatch.setattr(signal, "signal", set_to.__setitem__)
    monkeypatch.setattr(signal, "getsignal", set_to.__getitem__)
    exit_on_second_signal(reactor)
    reactor.fireSystemEvent("startup")
    assert set_to[signal.SIGINT] is signal.SIG_IGN

    set_to[signal.SIGTERM](signal.SIGTERM, None)

    assert received == [signal.SIGTERM]
    assert set_to == {signal.SIGTERM: signal.SIG_IGN, signal.SIGINT: signal.SIG_IGN}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_stop_timeout_exceeds_the_daemons(unit):
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.M)

    assert int(seconds) > STOP_SECONDS


def test_systemd_units_exist():
    assert len(UNITS) == 7
