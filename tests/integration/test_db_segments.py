"""``meter-db segments``: how an instance spent its time, from what Nova said of it and a database keeps."""

from __future__ import annotations

import json

import pytest_twisted

from tests.integration.test_db_command import meter_db
from tests.integration.test_store_rollups import running
from tests.store_messages import after
from tests.store_messages import message

__all__ = ["meter_db"]

HOUR = 3600


def said(hours, event, state, flavor="m1.small", deleted=""):
    metadata = {
        "event_type": f"compute.instance.{event}",
        "state": state,
        "flavor": {"name": flavor},
        "launched_at": after(0).isoformat(),
        "deleted_at": deleted,
    }
    return message("instance", at=hours * HOUR, unit="instance", resource_id="i1", metadata=metadata)


LIFE = [
    said(0, "create.end", "active"),
    said(2, "power_off.end", "stopped"),
    said(5, "power_on.end", "active"),
    said(6, "delete.end", "deleted", deleted=after(6 * HOUR).isoformat()),
    said(7, "update", "active"),  # late: nothing comes back
]
OTHERS = [
    said(3, "exists", "stopped"),
    # The hypervisor says under the same name that there is a domain.
    message("instance", at=1 * HOUR, unit="instance", resource_id="i1", metadata={"status": "running"}),
    message("instance", at=1 * HOUR, unit="instance", resource_id="i2", metadata={"event_type": "x", "state": "error"}),
]


@pytest_twisted.ensureDeferred
async def test_segments_report_an_instance_by_state_and_flavor(meter_db):
    async with running(meter_db.dsn) as store:
        await store.write(LIFE + OTHERS)

    status, out, errors = await meter_db("segments", "--json", "i1")

    assert (status, errors) == (0, "")
    report = json.loads(out)
    assert [(each["state"], each["began"][11:16], each["ended"][11:16]) for each in report["segments"]] == [
        ("active", "12:00", "14:00"),
        ("stopped", "14:00", "17:00"),
        ("active", "17:00", "18:00"),
    ]
    assert report["seconds"] == [
        {"state": "active", "flavor": "m1.small", "seconds": 3 * HOUR},
        {"state": "stopped", "flavor": "m1.small", "seconds": 3 * HOUR},
    ]

    between = ("--start", after(HOUR).isoformat(), "--end", after(4 * HOUR).isoformat())
    status, out, _ = await meter_db("segments", *between, "i1")
    assert status == 0
    assert out.splitlines()[-2:] == ["active   m1.small  3600.0", "stopped  m1.small  7200.0"]

    assert (await meter_db("segments", "nonesuch"))[0] == 1
    status, _, errors = await meter_db("segments", "--start", "soon", "i1")
    assert (status, errors) == (3, "--start must be a time like 2026-11-22T17:00:59.5, not 'soon'\n")


@pytest_twisted.ensureDeferred
async def test_segments_of_an_unusable_database_report_the_reason(meter_db):
    status, out, errors = await meter_db("segments", "i1")

    assert (status, out) == (2, "")
    assert "schema version 0" in errors


@pytest_twisted.ensureDeferred
async def test_segments_of_a_project_report_all_its_instances_deleted_ones_too(meter_db):
    metadata = {"event_type": "compute.instance.create.end", "state": "active", "flavor": {"name": "m1.tiny"}}
    other = message("instance", at=3 * HOUR, unit="instance", resource_id="i3", metadata=metadata)
    foreign = message("instance", at=0, unit="instance", resource_id="i4", project_id="p2", metadata=metadata)
    async with running(meter_db.dsn) as store:
        await store.write([*LIFE, *OTHERS, other, foreign])

    between = ("--start", after(HOUR).isoformat(), "--end", after(4 * HOUR).isoformat())
    status, out, errors = await meter_db("segments", "--json", *between, "--project", "p1")

    assert (status, errors) == (0, "")
    report = json.loads(out)
    assert report["instances"] == [
        {"instance": "i1", "state": "active", "flavor": "m1.small", "seconds": HOUR},
        {"instance": "i1", "state": "stopped", "flavor": "m1.small", "seconds": 2 * HOUR},
        {"instance": "i3", "state": "active", "flavor": "m1.tiny", "seconds": HOUR},
    ]
    assert {(each["state"], each["flavor"]): each["seconds"] for each in report["seconds"]} == {
        ("active", "m1.small"): HOUR,
        ("stopped", "m1.small"): 2 * HOUR,
        ("active", "m1.tiny"): HOUR,
    }

    assert (await meter_db("segments", "--project", "nonesuch"))[0] == 1
    status, _, errors = await meter_db("segments", "--project", "p1", "i1")
    assert "give the id of one instance after all options, or --project PROJECT" in errors
