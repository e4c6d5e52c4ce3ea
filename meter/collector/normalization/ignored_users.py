"""Requests of users who are not metered, above all Meter's own user, which asks Swift about every tenant's account."""

from __future__ import annotations

from typing import Any

from meter.notification import Notification


def requester(heard: Notification) -> str | None:
    """Return the id of the user whose request a middleware's notification reports, ``None`` for other notifications."""
    payload = heard.payload
    found: Any = None
    if heard.event_type.startswith("objectstore."):
        found = _member(_member(payload, "initiator"), "id")
    elif heard.event_type in ("http.request", "http.response"):
        found = _member(_member(payload, "request"), "HTTP_X_USER_ID")
    return found if isinstance(found, str) else None


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
