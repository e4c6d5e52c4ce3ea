"""What notifications of Keystone say about projects, domains and users."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.collector.identity_changes import IdentityChangeReporter
from meter.collector.identity_changes import identity_change
from meter.identity_report import IdentityChange
from meter.identity_report import identity_report
from meter.interfaces import Publication
from meter.notification import Notification
from meter.notification import notification
from meter.report import read_report
from tests.store_messages import KEYS

CAPTURED = Path(__file__).parents[2] / "data/notifications"


def captured(name: str) -> Notification:
    return notification(json.loads((CAPTURED / f"keystone.{name}.json").read_text())["message"])


def basic(event_type: str, payload: Any) -> Notification:
    return Notification("m", event_type, "identity.host", "INFO", datetime(2026, 11, 20, 12, tzinfo=UTC), payload)


def test_captured_notifications_have_the_time_of_the_change() -> None:
    assert identity_change(captured("identity.project.deleted")) == IdentityChange(
        "project", "f91097185fa64433b7b5006b19668f27", "2026-11-22T15:56:49.746944", "deleted"
    )
    assert identity_change(captured("identity.user.created")) == IdentityChange(
        "user", "4cc236f0eb364412abb1024bc6ffbdf3", "2026-11-22T15:56:26.719908", "created"
    )
    assert identity_change(captured("identity.authenticate.1")) is None


@pytest.mark.parametrize("kind", ["project", "domain", "user"])
@pytest.mark.parametrize("change", ["created", "updated", "deleted"])
def test_basic_notification_has_the_time_when_it_was_sent(kind: Any, change: Any) -> None:
    assert identity_change(basic(f"identity.{kind}.{change}", {"resource_info": "p"})) == IdentityChange(
        kind, "p", "2026-11-20T12:00:00", change
    )


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [
        ("identity.project.updated", {"resource_info": "p", "outcome": "failure"}),
        ("identity.project.updated", {"resource_info": 5}),
        ("identity.project.updated", {"resource_info": "x" * 256}),
        ("identity.project.updated", {"resource_info": "a\0b"}),
        ("identity.project.updated", {"target": "p"}),
        ("identity.project.updated", ["p"]),
        ("identity.group.updated", {"resource_info": "p"}),
        ("identity.project.disabled", {"resource_info": "p"}),
    ],
)
def test_other_notifications_say_nothing(event_type: str, payload: Any) -> None:
    assert identity_change(basic(event_type, payload)) is None


def test_invalid_time_of_the_change_is_replaced_by_that_of_the_notification() -> None:
    found = identity_change(basic("identity.user.deleted", {"target": {"id": "u"}, "eventTime": "now"}))
    assert found == IdentityChange("user", "u", "2026-11-20T12:00:00", "deleted")


class Bus:
    def __init__(self) -> None:
        self.publications: list[Publication] = []

    async def publish(self, publication: Publication) -> None:
        self.publications.append(publication)


@pytest_twisted.ensureDeferred
async def test_change_is_published_as_a_signed_report_unless_its_kind_is_not_wanted() -> None:
    bus = Bus()
    reporter = IdentityChangeReporter(bus, lambda _: KEYS.keys[0], Clock(), ("project", "domain"))
    for name in ("identity.project.deleted", "identity.user.created", "identity.authenticate.1"):
        await reporter.report(captured(name))
    [publication] = bus.publications
    report = identity_report(read_report(publication.body, KEYS).content)
    assert (report.origin, report.names, report.complete) == ("notification", (), ())
    assert [(each.kind, each.change) for each in report.changes] == [("project", "deleted")]
