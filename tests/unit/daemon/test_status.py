"""The status pages, as probes and Prometheus see them, and the log of readiness changes."""

from __future__ import annotations

import json

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel
from twisted.logger import globalLogPublisher
from twisted.web.test.requesthelper import DummyChannel

from meter.daemon.status import OptionalDependency
from meter.daemon.status import readiness_of
from meter.daemon.status import readiness_text
from meter.daemon.status import readiness_watch
from meter.daemon.status import status_site
from meter.interfaces import Readiness


class Dependency:
    def __init__(self, name: str, ready: bool = True, reason: str = "connected") -> None:
        self.name = name
        self.state = Readiness(name, ready, reason)

    def readiness(self) -> Readiness:
        return self.state


class Raising:
    name = "hypervisor"

    def readiness(self) -> Readiness:
        raise OSError("no socket")


def exposition() -> bytes:
    return b"meter_x 1\n"


def ask(
    path: str, dependencies=(), method: str = "GET", headers: str = "", body: bytes = b"", metrics=exposition
) -> tuple[int, dict[str, str], bytes]:
    """Put a request on the wire of the site; return status, headers and body of the answer."""
    site = status_site(dependencies, metrics, "text/plain; version=0.0.4", Clock())
    channel = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    transport = StringTransport()
    channel.makeConnection(transport)
    channel.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() + body)
    head, _, content = transport.value().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    channel.connectionLost(None)
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), content


def test_running_process_is_healthy_whatever_it_lacks():
    assert ask("/healthz", [Raising(), Dependency("bus", False)])[::2] == (200, b"ok\n")


def test_daemon_is_ready_when_all_dependencies_are():
    status, headers, body = ask("/readyz", [Dependency("bus", reason="amqp://broker/"), Dependency("store")])
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {
        "ready": True,
        "degraded": False,
        "dependencies": [
            {"name": "bus", "ready": True, "reason": "amqp://broker/"},
            {"name": "store", "ready": True, "reason": "connected"},
        ],
    }


def test_daemon_without_dependencies_is_ready():
    assert ask("/readyz")[0] == 200


def test_missing_dependency_is_reported_with_its_reason():
    status, _, body = ask("/readyz", [Dependency("bus"), Dependency("store", False, "connection refused"), Raising()])
    assert status == 503
    answer = json.loads(body)
    assert answer["ready"] is False
    assert answer["dependencies"][1:] == [
        {"name": "store", "ready": False, "reason": "connection refused"},
        {"name": "hypervisor", "ready": False, "reason": "the readiness check failed: OSError: no socket"},
    ]


def test_daemon_without_an_optional_dependency_is_ready_and_degraded():
    bus = Dependency("bus", False, "connection refused")
    spared = OptionalDependency(bus, "samples are refused")
    status, _, body = ask("/readyz", [spared, Dependency("store")])
    assert status == 200
    answer = json.loads(body)
    assert (answer["ready"], answer["degraded"]) == (True, True)
    assert answer["dependencies"][0] == {
        "name": "bus",
        "ready": False,
        "reason": "samples are refused: connection refused",
    }
    assert readiness_text([spared]) == "bus: degraded: samples are refused: connection refused"
    status, _, body = ask("/readyz", [spared, Dependency("store", False)])
    assert (status, json.loads(body)["degraded"]) == (503, False)

    bus.state = Readiness("bus", True, "amqp://broker/")
    assert json.loads(ask("/readyz", [spared])[2])["degraded"] is False
    assert readiness_text([spared]) == "bus: ready: amqp://broker/"


def test_metrics_are_served_as_text():
    status, headers, body = ask("/metrics")
    assert (status, headers["content-type"], body) == (200, "text/plain; version=0.0.4", b"meter_x 1\n")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/nothing"])
def test_head_is_answered_like_get_without_a_body(path):
    status, headers, body = ask(path)
    head = ask(path, method="HEAD")
    assert (head[0], head[1]["content-length"], head[2]) == (status, str(len(body)), b"")
    assert headers["content-length"] == str(len(body))


@pytest.mark.parametrize("path", ["/", "/healthz/", "/HEALTHZ", "/readyz/x", "/<script>"])
def test_unknown_page_is_404_in_json(path):
    status, headers, body = ask(path)
    assert (status, headers["content-type"]) == (404, "application/json")
    assert json.loads(body)["error_message"]["faultstring"] == "Not found; the pages are /healthz, /readyz, /metrics."


def test_query_is_ignored():
    assert ask("/healthz?verbose=1")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_than_get_and_head_are_405(method):
    status, headers, body = ask("/healthz", method=method)
    assert (status, headers["allow"]) == (405, "get, head")
    assert b"<" not in body


def test_request_body_is_discarded():
    assert ask("/healthz", headers="Content-Length: 5\r\n", body=b"12345")[0] == 200
    assert ask("/healthz", headers="Transfer-Encoding: chunked\r\n", body=b"5\r\n12345\r\n0\r\n\r\n")[0] == 200
    request = status_site([], exposition, "text/plain", Clock()).requestFactory(DummyChannel())
    request.gotLength(10)
    request.handleContentChunk(b"x" * 10)
    assert request.content.tell() == 0


def test_failing_page_is_500_in_json_and_logged(logged_errors):
    def failing() -> bytes:
        raise ZeroDivisionError

    status, headers, body = ask("/metrics", metrics=failing)
    assert (status, headers["content-type"]) == (500, "application/json")
    assert b"ZeroDivisionError" not in body
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_dependency_that_raises_is_not_ready():
    assert readiness_of(Raising()).name == "hypervisor"
    nameless = type("Nameless", (), {"readiness": lambda self: 1 / 0})()
    assert readiness_of(nameless) == Readiness(
        "Nameless", False, "the readiness check failed: ZeroDivisionError: division by zero"
    )


def test_readiness_text_has_a_line_per_dependency():
    assert readiness_text([Dependency("bus"), Dependency("store", False, "away")]) == (
        "bus: ready: connected\nstore: not ready: away"
    )


@pytest.fixture
def logged():
    """The lines that the watch has logged."""
    lines: list[tuple[LogLevel, str]] = []

    def observer(event):
        if event.get("log_namespace") == "meter.daemon.status.ReadinessLog":
            lines.append((event["log_level"].name, f"{event['dependency']} {event['reason']}"))

    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)


def test_readiness_change_is_logged_once(logged):
    clock, bus = Clock(), Dependency("bus", False, "connecting")
    service = readiness_watch([bus], clock)
    service.startService()
    assert logged == [], "what is being connected at the start is no news"
    clock.pump([1.0] * 5)
    assert logged == [("info", "bus connecting")], "what is being connected after the start is no alarm"
    bus.state = Readiness("bus", False, "still connecting")
    clock.pump([1.0] * 30)
    assert logged[1:] == [("warn", "bus still connecting")]
    bus.state = Readiness("bus", True, "connected")
    clock.pump([1.0] * 5)
    assert logged[2:] == [("info", "bus connected")]
    bus.state = Readiness("bus", False, "lost")
    clock.pump([1.0] * 5)
    assert logged[3:] == [("warn", "bus lost")]
    service.stopService()


def test_first_start_in_which_all_gets_ready_warns_of_nothing(logged):
    clock, outbox = Clock(), Dependency("outbox")
    service = readiness_watch([outbox], clock)
    service.startService()
    clock.pump([1.0] * 2)
    outbox.state = Readiness("outbox", False, "the store is being created")
    clock.pump([1.0] * 5)
    outbox.state = Readiness("outbox", True, "the last messages were confirmed")
    clock.pump([1.0] * 30)
    assert [level for level, _ in logged] == ["info"] * 3
    service.stopService()


def test_dependency_that_is_added_later_is_watched_too(logged):
    clock, dependencies = Clock(), []
    service = readiness_watch(dependencies, clock)
    service.startService()
    clock.advance(1)
    dependencies.append(Dependency("bus"))
    clock.advance(1)
    assert logged == [("info", "bus connected")]
    service.stopService()
