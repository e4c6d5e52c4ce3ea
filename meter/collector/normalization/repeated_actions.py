"""Actions that an audit repeats: Cinder's audit with ``--send_actions`` sends creations and deletions again.

A volume is created once and deleted once, so event type and resource identify the action: its samples have the same ids,
whichever notification reports it. The audit's notification gives the time of the action as a period without length. That
is when the database was changed, some moments before the action's own notification, and the rest is as it is at the time
of the audit: a volume may be larger by then and have another owner. Samples of the audit say so, and the store takes them
as duplicates.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from meter.identity import DIFFERENCES
from meter.message import BadMessage
from meter.message import moment
from meter.notification import Notification

ACTIONS = re.compile(
    r"(?P<kind>volume|snapshot|backup|share|share_snapshot)\.(?P<action>create|delete)\.(?P<phase>start|end)"
)
STATE_OF_TODAY = frozenset({"status", "deleted", "deleted_at", "terminated_at"})
"""What an audit says of a resource with its creation, though it is true of the time of the audit."""

ANYTHING = tuple(sorted(DIFFERENCES))

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
    action = replace(heard, message_id=f"{heard.event_type}\0{resource}")
    when = _time_of_action(heard)
    if when is None:
        # A deletion that failed starts once more, and so does a creation that another host takes over.
        return replace(action, may_differ=ANYTHING) if found["phase"] == "start" else action
    payload = heard.payload
    if found["action"] == "create":
        # What was made existed then, whatever has become of it by the time of the audit.
        payload = {name: value for name, value in payload.items() if name not in STATE_OF_TODAY}
    return replace(action, timestamp=when, payload=payload, may_differ=ANYTHING)


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
