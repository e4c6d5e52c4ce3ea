"""Neutron's traffic, reported in up to five granularities, is billed once."""

from __future__ import annotations

import itertools
import json
import random
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from meter.interfaces import IListener
from meter.listeners.neutron import bandwidth_listener
from meter.listeners.neutron.bandwidth import GRANULARITIES
from meter.listeners.neutron.bandwidth import BandwidthListener
from meter.listeners.neutron.bandwidth import BandwidthOptions
from meter.notification import Notification
from meter.notification import notification

CASES = Path(__file__).parents[2] / "data" / "cases"
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def fresh(**options: Any) -> BandwidthListener:
    return bandwidth_listener.configured(BandwidthOptions(**options))


def report(seconds: float, *granularities: str, agent: str = "net1") -> list[Notification]:
    """The notifications of an agent about 1 000 bytes in an interval."""
    return [
        Notification(
            f"{agent} {seconds} {each}",
            f"l3.meter.{each}",
            f"metering.{agent}",
            "INFO",
            NOON + timedelta(seconds=seconds, milliseconds=3 * number),
            {"resource_id": each, "project_id": "all" if each == "label" else "p", "bytes": 1000, "host": agent},
        )
        for number, each in enumerate(granularities)
    ]


def billed(listener: BandwidthListener, *reports: list[Notification]) -> list[str]:
    return [each.resource_id for said in itertools.chain(*reports) for each in listener.samples(said)]


def test_bandwidth_listener_provides_the_interface() -> None:
    assert verifyObject(IListener, bandwidth_listener)
    assert bandwidth_listener.name == "neutron.bandwidth"


def test_single_granularity_is_billed() -> None:
    content = json.loads((CASES / "l3-meter-router.json").read_text())
    [sample] = fresh().samples(notification(content))
    assert (sample.name, sample.type, sample.volume, sample.unit) == ("bandwidth", "delta", 5000, "B")
    assert (sample.resource_id, sample.project_id, sample.user_id) == ("router-r1", "proj-a", None)


@pytest.mark.parametrize(
    ("owner", "project"),
    [({"tenant_id": "p"}, "p"), ({"project_id": "p"}, "p"), ({"project_id": None}, None), ({}, None)],
)
def test_traffic_of_a_label_has_the_project_under_either_name(owner: dict[str, Any], project: str | None) -> None:
    payload = {"label_id": "l", "bytes": 5000, "pkts": 4, "time": 300, "host": "net1", **owner}
    said = Notification("1", "l3.meter", "metering.net1", "INFO", NOON, payload)
    [sample] = fresh().samples(said)
    assert (sample.volume, sample.resource_id, sample.project_id) == (5000, "l", project)


@pytest.mark.parametrize("seed", range(10))
def test_one_granularity_of_each_report_is_billed_in_any_order(seed: int) -> None:
    mixed = random.Random(seed)
    orders = [mixed.sample(GRANULARITIES, len(GRANULARITIES)) for _ in range(4)]
    found = billed(fresh(), *(report(300 * number, *order) for number, order in enumerate(orders)))
    assert found == [orders[0][0], "label_project", "label_project", "label_project"]


def test_finest_granularity_is_billed_without_the_configured_one() -> None:
    some = ("label", "router", "label_router")
    found = billed(fresh(), *(report(300 * number, *some) for number in range(3)))
    assert found == ["label", "label_router", "label_router"]


def test_configured_granularity_is_billed() -> None:
    reports = [report(300 * number, *GRANULARITIES, agent=agent) for number in range(3) for agent in ("a", "b")]
    assert billed(fresh(granularity="router", fallback=False), *reports) == ["router"] * 6
    assert billed(fresh(granularity="router", fallback=False), report(0, "label_project")) == []
    assert billed(fresh(granularity="router"), *reports)[1:] == ["router"] * 5


def test_traffic_of_a_shared_label_has_no_project() -> None:
    [sample] = fresh().samples(report(0, "label")[0])
    assert sample.project_id is None


def test_report_without_granularity_is_billed_beside_any_granularity() -> None:
    legacy = Notification(
        "n", "l3.meter", "metering.old", "INFO", NOON, {"label_id": "l", "tenant_id": "p", "bytes": 7}
    )
    listener = fresh()
    assert billed(listener, report(0, "label_project"), [legacy]) == ["label_project", "l"]


def test_redelivered_notification_gets_the_same_decision() -> None:
    listener = fresh()
    first = report(0, "router", "label_project")
    assert billed(listener, first, report(300, "label_project"), first) == ["router", "label_project", "router"]
