"""Actions that an audit repeats: Cinder's audit with ``--send_actions`` sends creations and deletions again.

A volume is created once and deleted once, so event type and resource identify the action: its samples have the same ids,
whichever notification reports it. The audit's notification gives the time of the action as a period without length.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from meter.message import BadMessage
from meter.message import moment
from meter.notification import Notification

ACTIONS = re.compile(r"(?P<kind>volume|snapshot|backup|share|share_snapshot)\.(create|delete)\.(start|end)")
RESOURCES = {"share_snapshot": "snapshot_id"}
"""Where the resource of a kind is found, if not under ``<kind>_id``."""


def one_action(heard: Notification) -> Notification:
    """Return a notification of a creation or deletion under the id of that action, an audit's with the action's time."""
    found = ACTIONS.fullmatch(heard.event_type)
    if found is None or not isinstance(heard.payload, dict):
        return heard
    kind = found["kind"]
    resource = heard.payload.get(RESOURCES.get(kind, f"{kind}_id"))
    if not isinstance(resource, str) or not resource:
        return heard
    return replace(
        heard,
        message_id=f"{heard.event_type}\0{resource}",
        timestamp=_time_of_action(heard) or heard.timestamp,
    )


def _time_of_action(heard: Notification) -> datetime | None:
    """Return the time that an audit gives for the action, ``None`` where the notification is the action's own."""
    beginning, ending = (heard.payload.get(f"audit_period_{end}") for end in ("beginning", "ending"))
    if not isinstance(ending, str) or not ending or beginning != ending:
        return None
    try:
        when = moment(ending, "audit_period_ending")
    except BadMessage:
        return None
    return min(when, heard.timestamp)
