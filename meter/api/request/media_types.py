"""Media types: what a client accepts, and what it says of the body that it sends."""

from __future__ import annotations

import re
from collections.abc import Sequence

from twisted.web.iweb import IRequest
from werkzeug.http import parse_list_header
from werkzeug.http import parse_options_header

from meter.api.errors import Abort
from meter.api.errors import Fault

JSON_TYPES = ("application/json", "application/javascript", "text/javascript")
"""What Ceilometer called JSON, in requests and in ``Accept``; answers are always of the first."""

FORM_TYPE = "application/x-www-form-urlencoded"
"""What ``curl -d`` calls every body unless it is told otherwise."""

_QUALITY = re.compile(r"[01]?\.?[0-9]*")


def answer_type(accept: str | None, offered: Sequence[str]) -> str:
    """Return the one of ``offered`` that an ``Accept`` header prefers; :class:`Abort` 406 if it takes none of them.

    Parameters of a media type other than its quality (``charset=utf-8``) do not matter: each type is offered in one
    form only. The most specific range that covers a type decides about it, and of types of equal quality the first of
    ``offered`` is taken. A header in which nothing can be read says nothing.
    """
    ranges = _ranges(accept or "")
    if not ranges:
        return offered[0]
    aliases = JSON_TYPES if offered[0] == JSON_TYPES[0] and ranges.get(JSON_TYPES[0]) != 0 else ()
    best = max(dict.fromkeys((*offered, *aliases)), key=lambda each: _quality(each, ranges))
    if _quality(best, ranges) <= 0:
        raise Abort(406)
    return JSON_TYPES[0] if best in JSON_TYPES else best


def _ranges(accept: str) -> dict[str, float]:
    """Return the quality of each media range; of one that is named twice, the higher."""
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
    """Return the media type of the body of ``request``, without parameters; :class:`Fault` 415 for a compressed one."""
    coding = (request.getHeader("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise Fault(415, f"Unknown content encoding: {coding[:80]}: a body is sent as it is")
    return (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
