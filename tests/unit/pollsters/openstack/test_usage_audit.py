"""Nova's log of usage audits, in the format of its API reference, and the comparison with the notifications that have arrived."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted

import meter.pollsters.openstack as family
from meter.completeness_query import AuditedPeriod
from meter.interfaces import Unavailable
from meter.testing import MemoryStore
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import reply
from tests.signed import received
from tests.store_messages import KEYS
from tests.store_messages import after
from tests.store_messages import message
from tests.unit.pollsters.openstack.test_pollster import cycle_of
from tests.unit.pollsters.openstack.test_pollster import polled

PATH = "/v2.1/os-instance_usage_audit_log"


def done(host: str, instances: int, errors: int) -> dict[str, Any]:
    text = f"Instance usage audit ran for host {host}, {instances} instances in 0.7 seconds."
    return {"state": "DONE", "instances": instances, "errors": errors, "message": text}


LOG = {
    "hosts_not_run": ["compute3"],
    "log": {"compute1": done("compute1", 4, 0), "compute2": done("compute2", 3, 1)},
    "num_hosts": 3,
    "num_hosts_done": 2,
    "num_hosts_not_run": 1,
    "num_hosts_running": 0,
    "overall_status": "2 of 3 hosts done. 1 errors.",
    "period_beginning": "2026-11-18 11:00:00",
    "period_ending": "2026-11-18 12:00:00",
    "total_errors": 1,
    "total_instances": 7,
}


def cloud(document: Any) -> Any:
    stub = captured_cloud()
    stub.on("GET", PATH, reply(document))
    return stub


@pytest_twisted.ensureDeferred
async def test_each_number_of_the_log_is_a_meter() -> None:
    samples = await polled(family.usage_audit, cloud({"instance_usage_audit_logs": LOG}))

    assert {name.removeprefix("nova.usage_audit."): each.volume for (name, _), each in samples.items()} == {
        "hosts": 3,
        "hosts.done": 2,
        "hosts.running": 0,
        "hosts.not_run": 1,
        "instances": 7,
        "errors": 1,
    }
    assert next(iter(samples.values())).resource_metadata == {
        "period_beginning": "2026-11-18 11:00:00",
        "period_ending": "2026-11-18 12:00:00",
        "overall_status": "2 of 3 hosts done. 1 errors.",
        "hosts_not_run": ["compute3"],
        "hosts_with_errors": ["compute2"],
    }


@pytest.mark.parametrize(
    "document",
    [[], {}, {"instance_usage_audit_logs": []}, {"instance_usage_audit_logs": {**LOG, "num_hosts": "many"}}],
)
@pytest_twisted.ensureDeferred
async def test_another_answer_is_a_failure_of_the_poll(document: Any) -> None:
    with pytest.raises(Unavailable):
        await family.usage_audit.poll(cycle_of(cloud(document)))


@pytest_twisted.ensureDeferred
async def test_notifications_that_have_arrived_are_compared_with_those_that_were_sent() -> None:
    store = MemoryStore()
    samples = await family.usage_audit.poll(cycle_of(cloud({"instance_usage_audit_logs": LOG})))
    for n, sample in enumerate(samples):
        fields = {**{name: getattr(sample, name) for name in ("name", "type", "unit", "volume", "resource_id")}}
        fields |= {"timestamp": after(600), "resource_metadata": sample.resource_metadata, "message_id": f"poll {n}"}
        await store.write([received(type(sample)(**fields), KEYS, "openstack")])
    exists = {"event_type": "compute.instance.exists"}
    await store.write(
        [
            *(message("instance", at=0, resource_id=f"vm-{n}", metadata=exists) for n in range(5)),
            message("instance", at=0, resource_id="vm-0", metadata=exists),
            message("instance", at=-60, resource_id="vm-8", metadata={"event_type": "compute.instance.update"}),
            message("instance", at=-3600, resource_id="vm-9", metadata=exists),
        ]
    )

    [period] = await store.audited_periods(after(-60), after(60))

    began, ended = datetime(2026, 11, 18, 11, tzinfo=UTC), datetime(2026, 11, 18, 12, tzinfo=UTC)
    assert period == AuditedPeriod(start=began, end=ended, hosts=3, hosts_not_run=1, errors=1, sent=7, arrived=5)
    assert period.missing == 2
    assert await store.audited_periods(after(60), after(120)) == []
