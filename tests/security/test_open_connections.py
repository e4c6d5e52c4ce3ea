"""One client can neither open connections without end nor keep them open with requests that never end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.address import IPv6Address
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site
from zope.interface import alsoProvides

from meter.api import Api
from meter.api import ClientAddresses
from meter.api import make_site
from meter.daemon.http_connections import ConnectionLimits
from meter.daemon.http_server import LINGER_SECONDS
from meter.daemon.metrics import HealthMetrics
from meter.daemon.metrics import exposition
from meter.daemon.metrics import metrics_registry
from meter.daemon.status import status_site
from meter.settings import Config
from meter.testing import MemoryStore
from tests.http_exchange import parse

LIMITS = ConnectionLimits(max_per_address=3, max_head_seconds=10, max_body_seconds=20)
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v2/query/samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


class Connection:
    """An open connection to a site."""

    def __init__(self, site: Site, peer: Any, *, tls: bool = False) -> None:
        self.transport: Any = StringTransport(peerAddress=peer)
        if tls:
            alsoProvides(self.transport, ISSLTransport)
            self.transport.setTcpNoDelay = lambda _: None
        self.channel: Any = site.buildProtocol(peer)
        self.channel.makeConnection(self.transport)

    @property
    def refused(self) -> bool:
        return self.transport.disconnecting or self.transport.disconnected

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def close(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))


def client(host: str, port: int = 40000) -> IPv4Address:
    return IPv4Address("TCP", host, port)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["api", "status"])
def served(request: Any, clock: Clock) -> Any:
    """The site of the API and that of the status pages, with the reasons that each has counted."""
    reasons: list[str] = []
    if request.param == "api":
        return make_site(Api(MemoryStore(), clock), clock, limits=LIMITS, count=reasons.append), reasons
    site = status_site([], lambda: b"a 1\n", "text/plain", clock, reasons.append)
    site.connections.limits = LIMITS
    return site, reasons


# --- open connections -----------------------------------------------------------------------------------------------


def test_connections_of_one_address_are_limited_and_those_of_others_go_on(served: Any) -> None:
    site, reasons = served
    opened = [Connection(site, client("192.0.2.1", port)) for port in range(1, 6)]
    assert [each.refused for each in opened] == [False, False, False, True, True]
    assert reasons == ["connections", "connections"]
    answer = parse(opened[3].transport.value())
    assert answer.status == 429
    assert "3 open connections" in answer.json["error_message"]["faultstring"]
    other = Connection(site, client("192.0.2.2"))
    other.send(GET)
    assert not other.refused
    assert other.transport.value().startswith(b"HTTP/1.1 ")


def test_refused_connection_reads_nothing_and_its_end_frees_nothing(served: Any) -> None:
    site, _ = served
    opened = [Connection(site, client("192.0.2.1", port)) for port in range(1, 5)]
    opened[3].transport.clear()
    opened[3].send(GET)
    assert opened[3].transport.value() == b""
    opened[3].close()
    assert Connection(site, client("192.0.2.1")).refused
    opened[0].close()
    assert not Connection(site, client("192.0.2.1")).refused


def test_connections_of_all_addresses_together_are_limited(served: Any) -> None:
    site, reasons = served
    site.connections.limits = replace(LIMITS, max_open=4)
    opened = [Connection(site, client(f"192.0.2.{n}")) for n in range(1, 7)]
    assert [each.refused for each in opened] == [False] * 4 + [True] * 2
    assert reasons == ["connections", "connections"]
    answer = parse(opened[4].transport.value())
    assert answer.status == 503
    assert "4 open connections" in answer.json["error_message"]["faultstring"]
    opened[4].close()
    assert Connection(site, client("192.0.2.9")).refused
    opened[0].close()
    assert not Connection(site, client("192.0.2.9")).refused


def test_refused_tls_connection_is_aborted_because_its_handshake_may_never_end(served: Any) -> None:
    site, _ = served
    opened = [Connection(site, client("192.0.2.1", port), tls=True) for port in range(1, 5)]
    assert opened[3].transport.disconnected
    assert opened[3].transport.value() == b""


def test_many_addresses_of_one_ipv6_network_count_as_one(served: Any) -> None:
    site, _ = served
    opened = [Connection(site, IPv6Address("TCP", f"2001:db8::{number}", 1)) for number in range(1, 6)]
    assert [each.refused for each in opened] == [False, False, False, True, True]
    assert not Connection(site, IPv6Address("TCP", "2001:db8:0:1::1", 1)).refused


def test_nothing_is_remembered_of_addresses_whose_connections_are_closed(served: Any) -> None:
    site, _ = served
    for number in range(1000):
        for opened in [Connection(site, client(f"10.0.{number // 250}.{number % 250}", port)) for port in range(4)]:
            opened.close()
    assert not site.connections._open
    assert not site.connections._logged


def test_connections_of_trusted_proxies_are_not_counted(clock: Clock) -> None:
    api = Api(MemoryStore(), clock, addresses=ClientAddresses(["192.0.2.0/28", "unix"]))
    site = make_site(api, clock, limits=LIMITS)
    assert not any(Connection(site, client("192.0.2.1", port)).refused for port in range(1, 50))
    assert not any(Connection(site, UNIXAddress(b"/run/meter.sock")).refused for _ in range(50))
    assert [Connection(site, client("192.0.2.77", port)).refused for port in range(1, 5)] == [False] * 3 + [True]


# --- requests that never end ----------------------------------------------------------------------------------------


def trickle(connection: Connection, clock: Clock, data: bytes, seconds: int) -> int:
    """Send a byte of ``data`` each second; return after how many the server has answered."""
    for second in range(seconds):
        connection.send(data[second : second + 1] or b"x")
        clock.advance(1)
        if connection.transport.value():
            return second + 1
    return seconds


def closes(connection: Connection, clock: Clock) -> bool:
    clock.advance(LINGER_SECONDS)
    return bool(connection.transport.disconnecting)


def test_head_that_arrives_byte_by_byte_is_answered_408_and_the_connection_is_closed(served: Any, clock: Clock) -> None:
    site, reasons = served
    slow = Connection(site, client("192.0.2.1"))
    clock.advance(20)  # nothing has arrived yet: this is not part of the limit
    assert trickle(slow, clock, b"GET /healthz HTTP/1.1\r\nX-Long: ", 100) == 10
    answer = parse(slow.transport.value())
    assert (answer.status, reasons) == (408, ["head"])
    assert "within 10 seconds" in answer.json["error_message"]["faultstring"]
    assert closes(slow, clock)
    slow.close()
    assert not clock.getDelayedCalls()


def test_headers_line_by_line_are_limited_together(served: Any, clock: Clock) -> None:
    site, reasons = served
    slow = Connection(site, client("192.0.2.1"))
    for line in (b"GET /healthz HTTP/1.1\r\n", b"Host: localhost\r\n", b"X-A: 1\r\n", b"X-B: 1\r\n"):
        slow.send(line)
        clock.advance(4)
    assert (parse(slow.transport.value()).status, reasons) == (408, ["head"])


@pytest.mark.parametrize("head", [POST, POST.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked")])
def test_body_that_arrives_byte_by_byte_is_answered_408(served: Any, clock: Clock, head: bytes) -> None:
    site, reasons = served
    slow = Connection(site, client("192.0.2.1"))
    slow.send(head[:-2])
    clock.advance(9)
    slow.send(head[-2:])  # the body has its own time
    assert trickle(slow, clock, b"1\r\n{\r\n" * 20, 100) == 20
    assert (parse(slow.transport.value()).status, reasons) == (408, ["body"])
    assert closes(slow, clock)
    slow.close()  # and the file of a body of unknown length with it


def test_second_request_of_a_connection_is_limited_too(served: Any, clock: Clock) -> None:
    site, reasons = served
    slow = Connection(site, client("192.0.2.1"))
    slow.send(GET + GET[:10])
    first = len(slow.transport.value())
    assert first
    clock.advance(9)
    assert len(slow.transport.value()) == first
    slow.send(GET[10:])
    second = len(slow.transport.value())
    assert second > first
    clock.advance(9)  # an idle connection between requests has the time limit of idle connections
    slow.send(GET[:1])
    clock.advance(9)
    assert len(slow.transport.value()) == second
    clock.advance(1)
    assert parse(slow.transport.value()[second:]).status == 408
    assert reasons == ["head"]


def test_each_head_in_a_row_of_requests_has_its_own_time(served: Any, clock: Clock) -> None:
    site, reasons = served
    busy = Connection(site, client("192.0.2.1"))
    busy.send(GET[:10])
    for _ in range(10):
        clock.advance(6)
        busy.send(GET[10:] + GET[:10])
    assert busy.transport.value().count(b"HTTP/1.1 ") == 10
    assert reasons == []


def test_request_that_arrives_at_once_needs_no_timer(served: Any, clock: Clock) -> None:
    site, _ = served
    connection = Connection(site, client("192.0.2.1"))
    idle = len(clock.getDelayedCalls())
    connection.send(GET)
    assert connection.channel._arrival_timer is None
    assert len(clock.getDelayedCalls()) == idle


def test_body_that_was_refused_as_too_large_gets_no_second_response(clock: Clock) -> None:
    reasons: list[str] = []
    limits = ConnectionLimits(max_head_seconds=1, max_body_seconds=1)
    site = make_site(Api(MemoryStore(), clock), clock, max_body_bytes=10, limits=limits, count=reasons.append)
    slow = Connection(site, client("192.0.2.1"))
    slow.send(POST)
    refusal = slow.transport.value()
    for _ in range(LINGER_SECONDS):
        slow.send(b"x")
        clock.advance(1)
    assert slow.transport.value() == refusal
    assert parse(refusal).status == 413
    assert reasons == []
    assert slow.transport.disconnecting


def test_client_that_does_not_let_the_connection_end_is_aborted(served: Any, clock: Clock) -> None:
    site, _ = served
    slow = Connection(site, client("192.0.2.1"))
    aborted: list[bool] = []
    slow.transport.abortConnection = lambda: aborted.append(True)
    slow.send(GET[:10])
    for _ in range(60):
        clock.advance(1)
        slow.send(b"x")
    assert aborted == [True]


# --- what an operator sees ------------------------------------------------------------------------------------------


def test_rejections_are_counted_by_server_and_reason() -> None:
    registry = metrics_registry("test")
    metrics = HealthMetrics(registry)
    metrics.http_rejected("api", "head")
    metrics.http_rejected("api", "head")
    assert b'meter_http_rejections_total{reason="head",server="api"} 2.0' in exposition(registry)


def test_defaults_leave_room_for_the_requests_of_one_address() -> None:
    settings = Config().api
    assert settings.max_connections_per_address >= settings.shares.max_requests_per_address + 25
    assert ConnectionLimits() == ConnectionLimits(
        max_per_address=settings.max_connections_per_address,
        max_open=settings.max_connections,
        max_head_seconds=settings.max_head_seconds,
        max_body_seconds=settings.max_body_seconds,
    )
