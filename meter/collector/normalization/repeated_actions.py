"""Events that a service publishes more than once, under several ids: each gives one sample of each meter.

Designate publishes each audit of a zone as ``dns.domain.exists`` and as ``dns.zone.exists``. Both have the same payload, so zone
and period identify the audit.

Cinder's audit is a command that cron runs, often on each of several controllers. Resource and period identify its ``exists`` too. The
second run reads the database a little later, so its samples may differ.

Cinder's audit repeats creations and deletions (``cinder-volume-usage-audit --send_actions``).
A volume is created once and deleted once, so event type and resource identify the action: its samples have the same ids,
whichever notification reports it. (Of a share this is not true: Manila also notifies of its copies.) The audit gives the time of
the action as a period of length zero. It is the time of the database change, shortly before the action's own notification; the
other values are those at the time of the audit, when the volume may be larger and have another owner. Samples of the audit list
these fields in ``may_differ``, so the store counts them as duplicates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.notification import Notification
from meter.sample_identity import DIFFERENCES

ACTIONS = re.compile(r"(?P<kind>volume|snapshot|backup)\.(?P<action>create|delete)\.(?P<phase>start|end)")
STATE_OF_TODAY = frozenset({"status", "deleted", "deleted_at", "terminated_at"})
"""Members of a repeated creation that have their value at the time of the audit, not at the creation."""

ALL_FIELDS = tuple(sorted(DIFFERENCES))

ZONE_AUDITS = frozenset({"dns.domain.exists", "dns.zone.exists"})
"""Names under which Designate publishes one audit."""

AUDITS = {
    "volume.exists": "volume_id",
    "snapshot.exists": "snapshot_id",
    "trove.instance.exists": "instance_id",
}
"""``exists`` notifications of which each is counted, and the member of the payload that has the resource."""


def with_action_id(notification: Notification) -> Notification:
    """Return a notification of a creation or deletion with the id of that action, and if an audit repeats it, with the action's time.

    An ``exists`` notification gets the id of its resource and period. Others are returned as they are.
    """
    if notification.event_type in ZONE_AUDITS:
        return _with_audit_id(notification, "dns.zone.exists", ("id", "audit_period_ending"), notification.may_differ)
    if notification.event_type in AUDITS:
        members = (AUDITS[notification.event_type], "audit_period_beginning", "audit_period_ending")
        return _with_audit_id(notification, notification.event_type, members, ALL_FIELDS)
    found = ACTIONS.fullmatch(notification.event_type)
    if found is None or not isinstance(notification.payload, dict):
        return notification
    kind = found["kind"]
    resource = notification.payload.get(f"{kind}_id")
    if not isinstance(resource, str) or not resource:
        return notification
    action = replace(notification, message_id=f"{notification.event_type}\0{resource}")
    when = _time_of_action(notification)
    if when is None:
        # A failed deletion is started again, and so is a creation that another host takes over.
        return replace(action, may_differ=ALL_FIELDS) if found["phase"] == "start" else action
    payload = notification.payload
    if found["action"] == "create":
        # The resource existed at its creation, whatever its state at the time of the audit.
        payload = {name: value for name, value in payload.items() if name not in STATE_OF_TODAY}
    return replace(action, timestamp=when, payload=payload, may_differ=ALL_FIELDS)


def _with_audit_id(
    notification: Notification, name: str, members: Sequence[str], may_differ: tuple[str, ...]
) -> Notification:
    """Return the notification with an id of ``name`` and of these members of its payload, if it has all of them."""
    payload = notification.payload if isinstance(notification.payload, dict) else {}
    parts = [each for member in members if isinstance(each := payload.get(member), str) and each]
    if len(parts) < len(members):
        return notification
    return replace(notification, message_id="\0".join((name, *parts)), may_differ=may_differ)


def _time_of_action(notification: Notification) -> datetime | None:
    """Return the time of the action if the notification is an audit's, ``None`` if it is the action's own."""
    beginning, ending = (notification.payload.get(f"audit_period_{end}") for end in ("beginning", "ending"))
    if not isinstance(ending, str) or not ending or beginning != ending:
        return None
    try:
        when = parse_timestamp(ending, "audit_period_ending")
    except BadMessage:
        return None
    return min(when, notification.timestamp)
