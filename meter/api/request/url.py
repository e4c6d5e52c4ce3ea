"""The URL of a request, as it appears in the links of its response."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from twisted.web.server import Request

from meter.api.request.arguments import Pair

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


def request_root(request: Request) -> str:
    """Return the root URL, with the host of the ``Host`` header if that is valid, else with the server's address."""
    host = request.getHeader("host") or ""
    if not _HOST.fullmatch(host):
        address = request.getHost()
        host = f"{address.host}:{address.port}" if hasattr(address, "port") else "localhost"
    return f"{'https' if request.isSecure() else 'http'}://{host}"


def append_pairs(url: str, pairs: Sequence[Pair]) -> str:
    """Return ``url`` with ``pairs`` appended to its query string."""
    if not pairs:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs)}"
