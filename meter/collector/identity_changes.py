"""Reports what notifications of Keystone say about projects, domains and users: when they were created, updated or deleted."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import cast

from twisted.internet.interfaces import IReactorTime

from meter.ceilometer_signature import BadSignature
from meter.completeness.identities.identity_history import NOTIFICATION
from meter.daemon.services import wall_seconds
from meter.identity_report import KINDS
from meter.identity_report import MAX_ID
from meter.identity_report import ChangeKind
from meter.identity_report import IdentityChange
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityReport
from meter.interfaces import IPublisher
from meter.interfaces import Unavailable
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.notification import Notification
from meter.report import report_publication
from meter.sample import utc_text
from meter.signing_keys import SigningKey

EVENT_TYPE = re.compile(r"identity\.(project|domain|user)\.(created|updated|deleted)")


class IdentityChangeReporter:
    """Publishes a report for each notification about an identity of ``kinds``, signed with the ``key`` of the time."""

    def __init__(
        self,
        publisher: IPublisher,
        key: Callable[[datetime], SigningKey],
        clock: IReactorTime,
        kinds: Collection[str] = KINDS,
    ) -> None:
        self._publisher = publisher
        self._key = key
        self._clock = clock
        self._kinds = kinds

    async def report(self, notification: Notification) -> None:
        """Return when the report is confirmed, or at once if there is nothing to report; raises :class:`Unavailable`."""
        change = identity_change(notification)
        if change is None or change.kind not in self._kinds:
            return
        now = datetime.fromtimestamp(wall_seconds(self._clock), UTC)
        # The report is of now, so that its signature is verified with the keys of now; the change may be older.
        content = IdentityReport(
            origin=NOTIFICATION, message_id=notification.message_id[:MAX_ID], at=utc_text(now), changes=(change,)
        )
        try:
            key = self._key(now)
        except BadSignature as error:
            raise Unavailable(str(error)) from error
        await self._publisher.publish(report_publication("identities", content, key))


def identity_change(notification: Notification) -> IdentityChange | None:
    """Return what a notification, in Keystone's basic format or in CADF, says; ``None`` if it is about something else.

    A request that failed (``outcome`` in CADF) changed nothing.
    """
    found = EVENT_TYPE.fullmatch(notification.event_type)
    payload = notification.payload
    if found is None or not isinstance(payload, Mapping) or payload.get("outcome", "success") != "success":
        return None
    target = payload.get("target")
    for id_ in (payload.get("resource_info"), target.get("id") if isinstance(target, Mapping) else None):
        if isinstance(id_, str) and 0 < len(id_) <= MAX_ID and id_.isprintable():
            kind, change = cast(tuple[IdentityKind, ChangeKind], found.groups())
            return IdentityChange(kind, id_, utc_text(_time(payload, notification)), change)
    return None


def _time(payload: Mapping[str, Any], notification: Notification) -> datetime:
    """Return the time of the change: CADF has it, the basic format has that of the notification."""
    at = payload.get("eventTime")
    try:
        return parse_timestamp(at, "eventTime") if isinstance(at, str) else notification.timestamp
    except BadMessage:
        return notification.timestamp
