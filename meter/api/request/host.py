"""The ``Host`` header: which requests are served, and which root the links in a response have."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from twisted.internet.address import UNIXAddress
from twisted.web.server import Request

from meter.api.errors import ApiError

_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")


class HostPolicy:
    """The hosts under which clients reach the API.

    Links in responses begin with ``base_url`` if there is one. Otherwise they follow the ``Host`` header, but only if it
    is known: one of ``names``, or the address of the connection, or ``localhost`` over a loopback connection. A UNIX
    socket is a loopback connection, to any loopback address. With any other ``Host``, which whoever sent the request made up, links are relative.

    With ``refuse_unknown``, a request for an unknown name is refused. That is for an API without authentication: a web
    page whose name resolves to 127.0.0.1 (DNS rebinding) could otherwise read everything through its visitor's browser.
    Addresses are not refused: a page of another site cannot have the address of this API as its host.
    """

    def __init__(
        self, names: Collection[str] = (), base_url: str | None = None, *, refuse_unknown: bool = False
    ) -> None:
        self._base_url = base_url.rstrip("/") if base_url else None
        own = urlsplit(base_url).hostname if base_url else None
        self._names = {_plain(name) for name in (*names, *([own] if own else ()))}
        self._refuse_unknown = refuse_unknown

    def link_root(self, request: Request) -> str:
        """Return the root URL of links in the response, empty for relative links.

        Raises :class:`ApiError` 400 for a missing or malformed ``Host`` and 421 for one that is refused.
        """
        host = request.getHeader("host")
        if host is None:
            if request.clientproto == b"HTTP/1.1":
                raise ApiError(400, "The Host header is missing.")
            return self._base_url or ""
        match = _HOST.fullmatch(host)
        if (
            match is None
            or int(match["port"] or 0) > 65535
            or (match["name"][0] == "[" and not _address(match["name"]))
        ):
            raise ApiError(400, "The Host header is malformed.")
        known = self._knows(_plain(match["name"]), request)
        if self._refuse_unknown and not known and _address(match["name"]) is None:
            raise ApiError(421, "The Host header names another host; [api] host_names lists those of this API.")
        if self._base_url is not None:
            return self._base_url
        return f"{'https' if request.isSecure() else 'http'}://{host}" if known else ""

    def _knows(self, name: str, request: Request) -> bool:
        if name in self._names:
            return True
        host = request.getHost()
        address = _address(name)
        if isinstance(host, UNIXAddress):
            return name == "localhost" or (address is not None and address.is_loopback)
        local = _address(getattr(host, "host", ""))
        if local is None:
            return False
        return address == local or (local.is_loopback and name == "localhost")


def _plain(name: str) -> str:
    return name.lower().strip("[]").removesuffix(".")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that ``text`` is, an IPv4 address that is mapped to IPv6 as IPv4; ``None`` for a name."""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
