"""Requests of ignored users, above all of Meter's own user, which queries every project's Swift account."""

from __future__ import annotations

from typing import Any

from meter.notification import Notification


def requester(notification: Notification) -> str | None:
    """Return the id of the user whose request a middleware reports, ``None`` for other notifications."""
    payload = notification.payload
    found: Any = None
    if notification.event_type.startswith("objectstore."):
        found = _member(_member(payload, "initiator"), "id")
    elif notification.event_type in ("http.request", "http.response"):
        found = _member(_member(payload, "request"), "HTTP_X_USER_ID")
    return found if isinstance(found, str) else None


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
