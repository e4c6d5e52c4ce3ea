"""Handler of the audit log."""

from __future__ import annotations

from datetime import datetime

from meter.api.errors import invalid_input
from meter.api.rendering.audit import audit_log_entry
from meter.api.request.context import RequestContext
from meter.api.request.paging import INVALID_MARKER
from meter.api.request.paging import next_link
from meter.api.request.times import parse_time_argument
from meter.api.responses import JsonResponse
from meter.query import AuditFilter

MAX_SEQ_DIGITS = 18
"""Digits of a number that PostgreSQL's ``bigint`` can hold."""


async def audit_log(context: RequestContext) -> JsonResponse:
    """Handle ``/v2/audit-log``."""
    arguments = context.arguments
    filter = AuditFilter(
        action=arguments["action"], who=arguments["who"], start=_time(context, "start"), end=_time(context, "end")
    )
    marker, size = arguments["marker"], context.limit
    if marker is not None and not (marker.isascii() and marker.isdecimal() and len(marker) <= MAX_SEQ_DIGITS):
        raise invalid_input("marker", marker, INVALID_MARKER)
    entries = await context.store.audit_entries(filter, size + 1, None if marker is None else int(marker))
    link = {"Link": next_link(context.url, str(entries[size - 1].seq))} if len(entries) > size else {}
    return JsonResponse([audit_log_entry(entry) for entry in entries[:size]], link)


def _time(context: RequestContext, name: str) -> datetime | None:
    text = context.arguments[name]
    return None if text is None else parse_time_argument(name, text)
