"""What a request holds: its body, the pairs of its query string and body, and the URL it was sent to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from twisted.web.server import Request

from meter.api.errors import Fault
from meter.api.operations import Operation
from meter.api.request.arguments import Pair
from meter.api.request.arguments import check_pairs
from meter.api.request.arguments import read_pairs
from meter.api.request.media_types import FORM_TYPE
from meter.api.request.media_types import JSON_TYPES
from meter.api.request.media_types import body_type
from meter.api.request.query_in_body import body_pairs
from meter.api.request.query_in_body import check_asked_once
from meter.api.request.query_in_body import decoded

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


def body_of(request: Request, operation: Operation) -> bytes:
    """Return the body, empty where there is none; :class:`Fault` 415 for one of a type that is not read here."""
    content = b"" if request.content is None else request.content.read()
    if content:
        given = body_type(request)
        if given not in (JSON_TYPES if operation.body is not None else (*JSON_TYPES, FORM_TYPE, "")):
            raise Fault(415, f"Unknown mimetype: {given}")
    return content


def pairs_of(request: Request, operation: Operation, content: bytes) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """Return what the query string asks, and what the body does where it is no record of its own."""
    asked = read_pairs(request.uri.partition(b"?")[2])
    in_body = body_pairs(content, body_type(request), operation.parameters) if operation.body is None else ()
    check_asked_once(asked, in_body)
    check_pairs([*asked, *in_body])
    return asked, in_body


def with_pairs(url: str, in_body: Sequence[Pair]) -> str:
    """Return ``url`` with what the body asks in its query string, so that whoever follows a link asks the same."""
    if not in_body:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(in_body)}"


def json_of(content: bytes) -> Any:
    """Return the decoded body, ``UNSET`` for an empty one; :class:`Fault` 400 where it is not JSON."""
    return decoded(content) if content.strip() else msgspec.UNSET


def asked_root(request: Request) -> str:
    """Return the URL of the root as the client wrote it, unless it is none."""
    host = request.getHeader("host") or ""
    if not _HOST.fullmatch(host):
        address = request.getHost()
        host = f"{address.host}:{address.port}" if hasattr(address, "port") else "localhost"
    return f"{'https' if request.isSecure() else 'http'}://{host}"
