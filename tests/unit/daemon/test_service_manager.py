"""What a daemon tells its service manager, received by a real socket."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from meter.daemon.service_manager import MAX_STATUS_CHARACTERS
from meter.daemon.service_manager import NotifySocket
from meter.daemon.service_manager import ServiceManagerNotifier
from meter.daemon.service_manager import service_manager_notifier
from meter.daemon.service_manager import status_sentence
from meter.interfaces import Readiness


class Dependency:
    def __init__(self, name: str, ready: bool = True, reason: str = "connected", needed: bool = True) -> None:
        self.state = Readiness(name, ready, reason, needed)

    def readiness(self) -> Readiness:
        return self.state


class Receiver:
    """The socket of a service manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifiers: list[ServiceManagerNotifier] = []
        self._socket.setblocking(False)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def received(self) -> list[list[str]]:
        """The lines of each datagram that has arrived."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return datagrams

    def notifier(self, dependencies: Any = (), clock: Clock | None = None, **more: str) -> ServiceManagerNotifier:
        """A notifier whose messages arrive here, stopped with the test."""
        notifier = service_manager_notifier(environment(self, **more), dependencies, clock or Clock())
        assert notifier is not None
        self._notifiers.append(notifier)
        return notifier

    def close(self) -> None:
        for notifier in self._notifiers:
            notifier.stopService()
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(str(tmp_path / "notify") if request.param == "path" else f"@meter-{uuid.uuid4()}")
    yield receiver
    receiver.close()


def environment(receiver: Receiver, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": receiver.address, "PATH": "/bin", **more}


def test_started_daemon_is_ready_though_its_broker_is_away(receiver: Receiver) -> None:
    notifier = receiver.notifier([Dependency("store"), Dependency("bus", False, "Connection refused")])
    notifier.started()
    assert receiver.received() == [["READY=1", "STATUS=not ready: bus: Connection refused"]]


def test_nothing_is_sent_before_the_daemon_has_started(receiver: Receiver) -> None:
    notifier = receiver.notifier(WATCHDOG_USEC="4000000")
    notifier.startService()
    assert receiver.received() == []
    notifier.stopService()


def test_watchdog_is_served_twice_in_its_time_by_the_clock_of_the_reactor(receiver: Receiver) -> None:
    clock = Clock()
    notifier = receiver.notifier(clock=clock, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
    notifier.startService()
    notifier.started()
    assert receiver.received() == [["READY=1", "WATCHDOG=1", "STATUS=all dependencies are ready"]]
    clock.advance(1.9)
    assert receiver.received() == []
    clock.pump([0.2, 2.0, 2.0])
    assert receiver.received() == [["WATCHDOG=1"]] * 3
    notifier.stopService()


def test_watchdog_is_served_until_the_last_part_has_stopped_and_the_status_stays(receiver: Receiver) -> None:
    clock, store = Clock(), Dependency("store")
    notifier = receiver.notifier([store], clock, WATCHDOG_USEC="2000000")
    notifier.startService()
    notifier.started()
    notifier.stopping()
    store.state = Readiness("store", False, "closed")
    clock.advance(1.0)
    assert receiver.received()[1:] == [["STOPPING=1", "STATUS=stopping"], ["WATCHDOG=1"]]
    notifier.stopService()
    clock.advance(10.0)
    assert receiver.received() == []


def test_status_is_sent_when_it_changes(receiver: Receiver) -> None:
    clock, bus = Clock(), Dependency("bus")
    notifier = receiver.notifier([bus], clock)
    notifier.startService()
    notifier.started()
    clock.pump([5.0, 5.0])
    bus.state = Readiness("bus", False, "connection lost")
    clock.pump([5.0, 5.0])
    assert receiver.received() == [
        ["READY=1", "STATUS=all dependencies are ready"],
        ["STATUS=not ready: bus: connection lost"],
    ]
    notifier.stopService()


@pytest.mark.parametrize(
    "given",
    [
        {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
    ],
    ids=str,
)
def test_no_watchdog_is_served_that_is_not_meant_for_this_process(receiver: Receiver, given: dict[str, str]) -> None:
    notifier = receiver.notifier(**given)
    notifier.started()
    assert receiver.received() == [["READY=1", "STATUS=all dependencies are ready"]]


def test_servers_that_the_daemon_starts_are_not_given_the_socket(receiver: Receiver) -> None:
    variables = environment(receiver, WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
    notifier = service_manager_notifier(variables, [], Clock())
    assert notifier is not None
    assert variables == {"PATH": "/bin"}
    notifier.stopService()


@pytest.mark.parametrize("address", [None, "", "/", "@", "notify", "vsock:2:1234"])
def test_without_a_socket_that_is_understood_nobody_is_told(address: str | None) -> None:
    variables = {} if address is None else {"NOTIFY_SOCKET": address}
    assert service_manager_notifier(variables, [], Clock()) is None


def test_service_manager_that_is_gone_is_logged_once_and_told_the_status_when_it_is_back(tmp_path: Path) -> None:
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        notifier = ServiceManagerNotifier(NotifySocket(str(tmp_path / "notify")), [], clock := Clock())
        notifier.startService()
        notifier.started()
        clock.advance(5.0)
    finally:
        globalLogPublisher.removeObserver(logged.append)
    [event] = [each for each in logged if "service manager cannot be told" in str(each["log_format"])]
    assert event["socket"] == str(tmp_path / "notify")
    back = Receiver(str(tmp_path / "notify"))
    clock.advance(5.0)
    assert back.received() == [["STATUS=all dependencies are ready"]]
    back.close()
    notifier.stopService()


def test_service_manager_that_does_not_read_holds_nobody_up(receiver: Receiver) -> None:
    notify = NotifySocket(receiver.address)
    sent = 0
    while notify.send("WATCHDOG=1"):
        sent += 1
    assert receiver.received() == [["WATCHDOG=1"]] * sent
    assert notify.send("WATCHDOG=1")
    notify.close()


def test_status_is_one_short_line_without_passwords() -> None:
    bus = Dependency("bus", False, "amqp://meter:secret@h/\nREADY=1 " + "x" * 5000)
    sentence = status_sentence([bus, Dependency("status", False, "in use", needed=False)])
    assert sentence.startswith("not ready: bus: amqp://")
    assert "secret" not in sentence
    assert "\n" not in sentence
    assert len(sentence) == MAX_STATUS_CHARACTERS


def test_status_of_a_degraded_daemon() -> None:
    assert status_sentence([Dependency("bus", False, "refused", needed=False)]) == "degraded: bus: refused"
