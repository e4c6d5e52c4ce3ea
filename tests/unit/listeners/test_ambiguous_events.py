"""Notifications whose name, owner, state or id is not that of the resource as its project has it.

Each follows the source of the service: Designate 23, Manila 23, Cinder 29, Nova 34, and Neutron's notification of a deletion.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest

from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.completeness.lives.lives import life
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.observations import observation_of_samples
from meter.completeness.lives.observations import observations_of_report
from meter.query import StoredSample
from meter.testing import MemoryStore
from tests.unit.collector.test_repeated_events import collected
from tests.unit.collector.test_repeated_events import rows_of
from tests.unit.completeness.test_deletion_and_ownership import NOON
from tests.unit.completeness.test_deletion_and_ownership import instance
from tests.unit.completeness.test_deletion_and_ownership import made
from tests.unit.completeness.test_deletion_and_ownership import said

# --- audits of zones and databases ---------------------------------------------------------------------------------


def zone_audits(ending: datetime, sent_after: float = 5) -> list[dict[str, Any]]:
    """Return both notifications that Designate sends of one zone for one hour."""
    period = {
        "audit_period_beginning": (ending - timedelta(hours=1)).replace(tzinfo=None).isoformat(),
        "audit_period_ending": ending.replace(tzinfo=None).isoformat(),
    }
    seconds = (ending - NOON).total_seconds() + sent_after
    payload = {"id": "zone", "tenant_id": "p", "status": "ACTIVE", **period}
    return [said("dns.domain.exists", seconds, payload), said("dns.zone.exists", seconds + 0.01, payload)]


@pytest.mark.parametrize("order", [1, -1])
def test_zone_exists_once_in_an_hour_that_two_notifications_tell(order: int) -> None:
    hours = [zone_audits(NOON + timedelta(hours=hour))[::order] for hour in (1, 2)]
    for store in (collected(*hours), collected(*([each] for hour in hours for each in hour))):
        assert [row.volume for row in rows_of(store, "dns.domain.exists")] == [3600, 3600]


@pytest.mark.parametrize("meter", ["dns.domain.exists", "trove.instance.exists"])
def test_last_hour_of_a_month_is_in_that_month(meter: str) -> None:
    ending = datetime(2026, 12, 1, tzinfo=UTC)
    [told] = zone_audits(ending)[:1]
    told |= {"event_type": meter}
    told["payload"] |= {"instance_id": "database", "user_id": "u"}

    [sample] = made([told])

    assert sample.timestamp == datetime(2026, 11, 30, 23, tzinfo=UTC)
    # A cumulative meter would have the increase 0: each volume is that of one period.
    assert (sample.type, sample.volume) == ("delta", 3600)


# --- audits that several controllers run ---------------------------------------------------------------------------


def audits(event_type: str, controllers: int, hours: int) -> list[list[dict[str, Any]]]:
    """Return the notifications of one resource that each of several controllers sends, every hour; the resource grows meanwhile."""
    found: list[list[dict[str, Any]]] = [[] for _ in range(controllers)]
    for number, hour in itertools.product(range(controllers), range(1, hours + 1)):
        period = {f"audit_period_{end}": f"2026-11-22 {11 + hour + after:02}:00:00" for end, after in PERIOD}
        resource = {each: "x" for each in ("volume_id", "snapshot_id", "instance_id")}
        size = {"size": 10 + number, "volume_size": 10 + number}
        payload = {**resource, **size, "tenant_id": "p", "user_id": "u", "status": "available", **period}
        sent = said(event_type, 3600 * hour + 5 + number, payload)
        found[number].append(sent | {"message_id": f"{number} {hour}"})
    return found


PERIOD = (("beginning", 0), ("ending", 1))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("event_type", "volume"), [("volume.exists", 1), ("snapshot.exists", 1), ("trove.instance.exists", 3600)]
)
def test_audit_that_several_controllers_run_is_counted_once(event_type: str, volume: int, order: int) -> None:
    sent = audits(event_type, controllers=3, hours=2)[::order]
    for store in (collected(*sent), collected(list(itertools.chain(*sent)))):
        assert [row.volume for row in rows_of(store, event_type)] == [volume, volume]


def test_audits_of_an_hour_and_of_the_day_are_two() -> None:
    [[hour]] = audits("volume.exists", controllers=1, hours=1)
    day = hour | {"message_id": "day", "payload": hour["payload"] | {"audit_period_beginning": "2026-11-21 13:00:00"}}
    assert len(rows_of(collected([hour, day]), "volume.exists")) == 2


# --- requests to an object store -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("initiator", "account", "owner"),
    [
        ({"id": "u", "project_id": "p"}, "p", ("p", "u")),
        ({"id": "u", "project_id": "other"}, "p", ("other", "u")),  # who is permitted to read the container
        ({"id": "openstack:aee6d7a4-random"}, "p", ("p", None)),
        ({"id": "aee6d7a4-random", "project_id": None}, "p", ("p", None)),
        ({"id": "aee6d7a4-random"}, "v1/SERVICE_p/container/object", (None, "aee6d7a4-random")),
    ],
)
def test_request_without_a_token_is_that_of_the_project_of_the_account(
    initiator: dict[str, Any], account: str, owner: tuple[str | None, str | None]
) -> None:
    bytes_sent = {"metric": {"name": "storage.objects.outgoing.bytes", "unit": "B"}, "result": 5000}
    target = {"id": account, "action": "get", "metadata": {"container": "c", "object": "o"}}
    payload = {"initiator": initiator, "target": target, "outcome": "success", "measurements": [bytes_sent]}
    request, sent = made([said("objectstore.http.request", 0, payload)])
    assert [(each.name, each.volume) for each in (request, sent)] == [
        *[("storage.api.request", 1), ("storage.objects.outgoing.bytes", 5000)]
    ]
    assert {(each.project_id, each.user_id) for each in (request, sent)} == {owner}


# --- shares --------------------------------------------------------------------------------------------------------


def share(event: str, seconds: float, status: str, size: int = 2, **context: Any) -> dict[str, Any]:
    payload = {"share_id": "x", "size": size, "project_id": "a", "user_id": "ua", "status": status}
    return said(f"share.{event}", seconds, payload, **context)


def run_of(row: StoredSample) -> SampleRun:
    return SampleRun(
        meter=row.name,
        resource_id=row.resource_id,
        user_id=row.user_id,
        project_id=row.project_id,
        source=row.source,
        interval=0.0,
        first=row.timestamp,
        last=row.timestamp,
        volume=row.volume,
        metadata=row.metadata,
    )


def share_life(store: MemoryStore, *polled: tuple[float, float]) -> list[LifeSegment]:
    """Return the life of the share in ``store``; each of ``polled`` is the begin and the end of a time in which Manila lists it."""
    told = [observation_of_samples(KINDS["share"], run_of(row)) for row in rows_of(store, "manila.share.size")]
    listed = [
        ListedTime(
            agent="central",
            host="central",
            pollster="manila.share",
            resource_id="x",
            project_id="a",
            interval=300,
            first=NOON + timedelta(seconds=first),
            last=NOON + timedelta(seconds=last),
            gone=None,
            unlisted_seconds=None,
        )
        for first, last in polled
    ]
    reports = [each for time in listed for each in observations_of_report(time)]
    now = NOON + timedelta(days=1)
    return list(life(KINDS["share"], [*(each for each in told if each is not None), *reports], now).segments)


def test_accepted_share_belongs_to_the_project_of_the_request() -> None:
    # Manila sends what it read before the transfer, with the former owner.
    told = share("transfer.accept.end", 60, "awaiting_transfer", project_id="b", user_id="ub")

    [sample] = made([told])

    assert (sample.project_id, sample.user_id) == ("b", "ub")


def test_accepted_share_without_a_request_belongs_to_the_project_in_the_payload() -> None:
    [sample] = made([share("transfer.accept.end", 60, "awaiting_transfer")])
    assert (sample.project_id, sample.user_id) == ("a", "ua")


@pytest.mark.parametrize(
    ("event", "during"), [("create", "creating"), ("extend", "extending"), ("shrink", "shrinking")]
)
def test_share_is_available_after_an_action_whose_status_is_still_sent(event: str, during: str) -> None:
    store = collected([share(f"{event}.start", 0, during), share(f"{event}.end", 60, during)])
    assert [(each.state, each.began) for each in share_life(store)] == [
        (during, NOON),
        ("available", NOON + timedelta(seconds=60)),
    ]


MOVED: Sequence[dict[str, Any]] = [
    share("create.start", 0, "creating"),
    share("create.end", 60, "creating"),
    share("extend.end", 100, "extending", size=3),
    # The new copy, then the old one.
    share("create.start", 3600, "creating", size=3),
    share("create.end", 3700, "creating", size=3),
    share("delete.start", 3800, "deleting", size=3),
    share("delete.end", 3900, "deleting", size=3),
]


def test_moved_share_that_is_listed_afterwards_has_not_ended() -> None:
    store = collected(MOVED)
    assert share_life(store, (0, 7200))[-1].ended is None
    assert share_life(store, (4200, 7200))[-1].ended is None


def test_moved_share_ends_with_its_own_deletion() -> None:
    store = collected(
        [*MOVED, share("extend.end", 7200, "extending", size=4), share("delete.end", 9000, "deleting", 4)]
    )
    found = share_life(store)
    assert found[-1].ended == NOON + timedelta(seconds=9000)
    assert [(each.size, each.began) for each in found][-1] == (4, NOON + timedelta(seconds=7200))


def test_share_that_is_not_listed_after_its_deletion_ended_with_it() -> None:
    store = collected([*MOVED[:3], share("delete.end", 3900, "deleting", size=3)])
    for found in (share_life(store), share_life(store, (0, 3900))):
        assert found[-1].ended == NOON + timedelta(seconds=3900)


def test_share_whose_deletion_is_deferred_has_ended() -> None:
    told = [share("create.end", 0, "creating"), share("delete.start", 600, "deferred_deleting")]
    store = collected([*told, share("delete.end", 86_400, "deferred_deleting")])
    assert [row.volume for row in sorted(rows_of(store, "manila.share.size"), key=lambda row: row.timestamp)] == [
        2,
        0,
        0,
    ]
    assert share_life(store)[-1].ended == NOON + timedelta(seconds=600)


# --- volumes, subnets, instances -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ("create.start", "migration_target_creating"),
        ("create.end", "migration_target"),
        ("exists", "migration_target"),
    ],
)
def test_copy_of_a_volume_that_migrates_is_not_metered(event: str, status: str) -> None:
    payload = {"volume_id": "copy", "size": 100, "tenant_id": "p", "user_id": "u"}
    assert made([said(f"volume.{event}", 0, payload | {"status": status})]) == []
    assert {"volume", "volume.size"} <= {
        sample.name for sample in made([said(f"volume.{event}", 0, payload | {"status": "available"})])
    }


@pytest.mark.parametrize("wrapped", [False, True])
def test_subnets_end_with_their_network(wrapped: bool) -> None:
    network = {"id": "n", "project_id": "p", "subnets": ["s1", "s2"]}
    payload = {"networks": [network]} if wrapped else {"network_id": "n", "network": network}
    ends = [
        sample for sample in made([said("network.delete.end", 60, payload, project_id="p")]) if sample.name == "subnet"
    ]
    assert [(each.resource_id, each.project_id, each.volume) for each in ends] == [("s1", "p", 0), ("s2", "p", 0)]


@pytest.mark.parametrize("meter", ["memory", "vcpus", "instance", "disk.root.size"])
def test_resize_that_fails_at_its_end_leaves_the_old_flavor(meter: str) -> None:
    new = {"memory_mb": 4096, "vcpus": 4, "root_gb": 40, "instance_type": "large", "state_description": "resize_finish"}
    resize = [
        instance("create.end", 1),
        instance("resize.start", 600),
        instance("finish_resize.start", 660, **new),
        instance("finish_resize.error", 700, **new),
    ]
    rows = rows_of(collected(resize), meter)
    assert {row.metadata["instance_type"] for row in rows} == {"m1.tiny"}


def test_old_host_with_a_clock_ahead_does_not_undo_a_resize() -> None:
    new = {"memory_mb": 4096, "instance_type": "large", "state": "resized"}
    told = [instance("create.end", 1), instance("finish_resize.end", 660, **new), instance("resize.end", 665)]
    rows = sorted(rows_of(collected(told), "memory"), key=lambda row: row.timestamp)
    assert [row.volume for row in rows] == [64, 4096]
