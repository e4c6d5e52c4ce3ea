"""Sends bytes to a site without a network, and parses the response strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site

HERE = IPv4Address("TCP", "127.0.0.1", 8777)
CLIENT = IPv4Address("TCP", "127.0.0.1", 40000)


@dataclass(frozen=True, slots=True)
class RawResponse:
    """The first response on a connection: status, headers with lower-case names, body. ``status`` 0: there is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    def problem(self) -> str | None:
        """Return what is wrong with this as the response to a malformed request, ``None`` if it is a JSON 4xx."""
        if not 400 <= self.status < 500:
            return f"status {self.status}"
        if not self.headers.get("content-type", "").startswith("application/json"):
            return f"type {self.headers.get('content-type')}"
        try:
            self.json  # noqa: B018 - it raises an exception
        except msgspec.DecodeError:
            return f"body {self.body[:80]!r}"
        return None


def exchange(site: Site, request: bytes, *, local: Any = HERE, peer: Any = CLIENT) -> RawResponse:
    """Return the response of ``site`` to ``request``, which is to be complete as soon as ``request`` is received.

    ``local`` and ``peer`` are the addresses of the two ends of the connection.
    """
    transport = StringTransport(hostAddress=local, peerAddress=peer)
    channel: Any = site.buildProtocol(peer)
    channel.makeConnection(transport)
    channel.dataReceived(request)
    sent = transport.value()
    channel.connectionLost(Failure(ConnectionDone()))
    return parse(sent)


def parse(sent: bytes) -> RawResponse:
    """Return the first response in ``sent``."""
    head, separator, body = sent.partition(b"\r\n\r\n")
    if not separator:
        return RawResponse(0, {}, sent)
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" in headers:
        body = body[: int(headers["content-length"])]
    return RawResponse(int(status_line.split(" ")[1]), headers, body)
