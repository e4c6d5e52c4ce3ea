"""The log names a client by the address that limits apply to, whatever the connection: TCP, a UNIX socket, or a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.address import IPv6Address
from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from meter.api import Api
from meter.api import ClientAddresses
from meter.api import HostPolicy
from meter.api import make_site
from meter.testing import MemoryStore
from tests.http_exchange import HERE
from tests.http_exchange import RawResponse
from tests.http_exchange import exchange
from tests.security.test_slow_readers import SlowClient
from tests.security.test_slow_readers import store

__all__ = ["store"]

SOCKET = UNIXAddress(b"/run/meter/api.sock")
NOBODY = UNIXAddress(None)
"""The address of a client of a UNIX socket, which has not bound its end."""

TCP_CLIENT = IPv4Address("TCP", "198.51.100.7", 40000)
IPV6_CLIENT = IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 40000)


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def ask(
    proxies: list[str], peer: object, forwarded: str = "", *, local: object = HERE, host: str = "localhost"
) -> RawResponse:
    clock = Clock()
    api = Api(
        MemoryStore(clock),
        clock,
        addresses=ClientAddresses(proxies),
        hosts=HostPolicy(refuse_unknown=True),
    )
    header = f"X-Forwarded-For: {forwarded}\r\n" if forwarded else ""
    request = f"GET /v2/samples HTTP/1.1\r\nHost: {host}\r\n{header}\r\n".encode()
    return exchange(make_site(api, clock, access_log=True), request, local=local, peer=peer)


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "client"),
    [
        ([], TCP_CLIENT, "", "198.51.100.7"),
        ([], TCP_CLIENT, "203.0.113.1", "198.51.100.7"),
        (["198.51.100.7"], TCP_CLIENT, "203.0.113.1", "203.0.113.1"),
        (["198.51.100.7"], TCP_CLIENT, "2001:db8::1", "2001:db8::1"),
        ([], IPV6_CLIENT, "", "2001:db8:1:2:3:4:5:6"),
    ],
)
def test_access_log_names_the_client_and_not_the_trusted_proxy(
    proxies: list[str], peer: object, forwarded: str, client: str, logged: list[dict[str, Any]]
) -> None:
    assert ask(proxies, peer, forwarded).status == 200
    assert [event["client"] for event in logged if event.get("uri") == "/v2/samples"] == [client]


@pytest.mark.parametrize(
    ("proxies", "forwarded", "client"),
    [([], "", "unix"), ([], "203.0.113.1", "unix"), (["unix"], "203.0.113.1", "203.0.113.1"), (["unix"], "", "unix")],
)
def test_request_over_a_unix_socket_is_served_and_logged(
    proxies: list[str], forwarded: str, client: str, logged: list[dict[str, Any]]
) -> None:
    assert ask(proxies, NOBODY, forwarded, local=SOCKET).status == 200
    assert [event["client"] for event in logged if event.get("uri") == "/v2/samples"] == [client]
    assert [event for event in logged if event.get("log_failure")] == []


@pytest.mark.parametrize(
    ("host", "status"), [("localhost", 200), ("127.0.0.1", 200), ("[::1]", 200), ("evil.example.org", 421)]
)
def test_unix_socket_is_a_loopback_connection(host: str, status: int) -> None:
    assert ask([], NOBODY, local=SOCKET, host=host).status == status


def test_client_that_is_disconnected_because_it_reads_slowly_is_the_one_behind_the_proxy(
    store: MemoryStore, logged: list[dict[str, Any]]
) -> None:
    accept = b"text/csv\r\nX-Forwarded-For: 203.0.113.1"
    client = SlowClient(store, b"/v2/samples", accept, addresses=ClientAddresses(["192.168.1.1"]))
    assert not client.read(100, 3)
    assert [event["client"] for event in logged if "aborting" in event.get("log_format", "")] == ["203.0.113.1"]
