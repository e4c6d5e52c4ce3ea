"""Media types: content negotiation by the ``Accept`` header, whether a response may be compressed, and the type of a request's body."""

from __future__ import annotations

import re
from collections.abc import Sequence

from twisted.web.iweb import IRequest
from werkzeug.http import parse_list_header
from werkzeug.http import parse_options_header

from meter.api.errors import ApiError
from meter.api.errors import HttpError

JSON_TYPES = ("application/json", "application/javascript", "text/javascript")
"""The names that Ceilometer accepted for JSON, in bodies and in ``Accept``; responses always have the first."""

FORM_TYPE = "application/x-www-form-urlencoded"
"""The type that ``curl -d`` sends by default, whatever the body is."""

_QUALITY = re.compile(r"[01]?\.?[0-9]*")


def accept_header(request: IRequest) -> str:
    """Return the ``Accept`` header, joined if it was given several times; empty if there is none."""
    values = request.requestHeaders.getRawHeaders(b"accept", ())
    return ", ".join(value.decode("utf-8", "replace") for value in values)


def negotiate(accept: str | None, offered: Sequence[str]) -> str:
    """Return the one of ``offered`` that the ``Accept`` header prefers; :class:`HttpError` 406 if it excludes all.

    Parameters of a media type other than its quality (``charset=utf-8``) are ignored: each type is offered in one form
    only. The most specific range that covers a type determines its quality, and of types of equal quality the first of
    ``offered`` is returned. A header without a valid range counts as absent.
    """
    ranges = _ranges(accept or "")
    if not ranges:
        return offered[0]
    aliases = JSON_TYPES if offered[0] == JSON_TYPES[0] and ranges.get(JSON_TYPES[0]) != 0 else ()
    best = max(dict.fromkeys((*offered, *aliases)), key=lambda each: _quality(each, ranges))
    if _quality(best, ranges) <= 0:
        raise HttpError(406)
    return JSON_TYPES[0] if best in JSON_TYPES else best


def accepts_gzip(request: IRequest) -> bool:
    """Return whether the client names gzip in ``Accept-Encoding`` and does not exclude it by ``q=0``."""
    for each in (request.getHeader("accept-encoding") or "").lower().split(","):
        coding, _, parameters = each.partition(";")
        if coding.strip() == "gzip":
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _ranges(accept: str) -> dict[str, float]:
    """Return the quality of each media range; of one that is listed twice, the higher."""
    ranges: dict[str, float] = {}
    for item in parse_list_header(accept):
        media_range, parameters = parse_options_header(item)
        media_range = media_range.strip().lower()
        quality = parameters.get("q", "1").strip()
        if media_range == "*":
            media_range = "*/*"  # what Java's URLConnection sends
        if "/" in media_range and any(map(str.isdigit, quality)) and _QUALITY.fullmatch(quality):
            ranges[media_range] = max(min(float(quality), 1.0), ranges.get(media_range, 0.0))
    return ranges


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    kind = media_type.partition("/")[0]
    return next((ranges[each] for each in (media_type, f"{kind}/*", "*/*") if each in ranges), 0.0)


def body_type(request: IRequest) -> str:
    """Return the media type of the request's body, without parameters; :class:`ApiError` 415 for a compressed body."""
    coding = (request.getHeader("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise ApiError(415, f"Unsupported content encoding: {coding[:80]}; send the body uncompressed.")
    return (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
