"""Notifications that were not captured, in the form given by the services' sources and Ceilometer's tests."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import pytest

from meter.notification import Notification
from meter.plugins.registry import LISTENER
from meter.plugins.registry import find
from meter.sample import Sample

LISTENERS = [decision.plugin for decision in find([LISTENER])]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
AUDIT = {"audit_period_beginning": "2026-11-22T11:00:00", "audit_period_ending": "2026-11-22T12:00:00"}


def samples_of(event_type: str, payload: Any, **context: Any) -> list[Sample]:
    said = Notification("id", event_type, "service.host1", "INFO", NOON, payload, context)
    return [
        sample
        for listener in LISTENERS
        if any(fnmatchcase(event_type, pattern) for pattern in listener.event_types)
        for sample in listener.samples(said)
    ]


@pytest.mark.parametrize(
    ("event_type", "payload", "context", "expected"),
    [
        (
            "orchestration.stack.create.end",
            {"stack_identity": "arn:s", "tenant_id": "p", "user_identity": "u", "stack_name": "web"},
            {"trustor_user_id": "t", "user_id": "x"},
            [("stack.create", "delta", 1, "stack", "arn:s", "t", "p")],
        ),
        (
            "orchestration.stack.suspend.end",
            {"stack_identity": "arn:s", "tenant_id": "p", "user_identity": "u"},
            {},
            [("stack.suspend", "delta", 1, "stack", "arn:s", "u", "p")],
        ),
        (
            "trove.instance.exists",
            {"instance_id": "db", "tenant_id": "p", "user_id": "u", **AUDIT},
            {},
            [("trove.instance.exists", "delta", 3600.0, "s", "db", "u", "p")],
        ),
        (
            "dns.domain.exists",
            {"id": "zone", "tenant_id": "p", "status": "ACTIVE", **AUDIT},
            {"user_id": "u"},
            [("dns.domain.exists", "delta", 3600.0, "s", "zone", "u", "p")],
        ),
        (
            "share.extend.end",
            {"share_id": "share", "project_id": "p", "user_id": "u", "size": 4, "proto": "NFS"},
            {},
            [("manila.share.size", "gauge", 4, "GiB", "share", "u", "p")],
        ),
        (
            "magnum.bay.metrics.update",
            {
                "resource_id": "bay",
                "project_id": "p",
                "user_id": "u",
                "metrics": [
                    {"name": "memory_util", "unit": "%", "value": 40.5},
                    {"name": "nodes", "unit": "node", "value": 3},
                ],
            },
            {},
            [("memory_util", "gauge", 40.5, "%", "bay", "u", "p"), ("nodes", "gauge", 3, "node", "bay", "u", "p")],
        ),
        (
            "l3.meter",
            {"label_id": "label", "tenant_id": "p", "bytes": 1024, "pkts": 8, "time": 300},
            {},
            [("bandwidth", "delta", 1024, "B", "label", None, "p")],
        ),
        (
            "backup.create.end",
            {"backup_id": "b", "tenant_id": "p", "user_id": "u", "size": 2},
            {},
            [("backup.size", "gauge", 2, "GiB", "b", "u", "p")],
        ),
        (
            "capacity.pool.host1@lvm#pool1",
            {
                "name_to_id": "host1@lvm#pool1",
                "total": 100,
                "free": 60,
                "allocated": 30,
                "provisioned": 50,
                "virtual_free": 70,
            },
            {},
            [
                ("volume.provider.pool.capacity.total", "gauge", 100, "GiB", "host1@lvm#pool1", None, None),
                ("volume.provider.pool.capacity.free", "gauge", 60, "GiB", "host1@lvm#pool1", None, None),
                ("volume.provider.pool.capacity.allocated", "gauge", 30, "GiB", "host1@lvm#pool1", None, None),
                ("volume.provider.pool.capacity.provisioned", "gauge", 50, "GiB", "host1@lvm#pool1", None, None),
                ("volume.provider.pool.capacity.virtual_free", "gauge", 70, "GiB", "host1@lvm#pool1", None, None),
            ],
        ),
        (
            "identity.authenticate",
            {"initiator": {"id": "u"}, "outcome": "failure"},
            {},
            [("identity.authenticate.failure", "delta", 1, "user", "u", "u", None)],
        ),
        # Keystone's basic form: nothing but what it is about.
        (
            "identity.group.updated",
            {"resource_info": "g"},
            {},
            [("identity.group.updated", "delta", 1, "group", "g", None, None)],
        ),
        (
            "identity.OS-TRUST:trust.created",
            {"resource_info": "t"},
            {},
            [("identity.trust.created", "delta", 1, "trust", "t", None, None)],
        ),
        (
            "identity.role_assignment.created",
            {"role": "r", "project": "p1", "initiator": {"id": "admin", "project_id": "p"}},
            {},
            [("identity.role_assignment.created", "delta", 1, "role_assignment", "r", "admin", "p")],
        ),
        (
            "scheduler.run_instance.scheduled",
            {"instance_id": "i", "request_spec": {"instance_properties": {"project_id": "p"}}},
            {},
            [("instance.scheduled", "delta", 1, "instance", "i", None, "p")],
        ),
        (
            "compute.instance.delete.samples",
            {
                "instance_id": "i",
                "tenant_id": "p",
                "user_id": "u",
                "samples": [
                    {"name": "cpu", "type": "cumulative", "unit": "ns", "volume": 5},
                    {"name": "disk.read.bytes", "type": "cumulative", "unit": "B", "volume": 6},
                ],
            },
            {},
            [("cpu", "cumulative", 5, "ns", "i", "u", "p"), ("disk.read.bytes", "cumulative", 6, "B", "i", "u", "p")],
        ),
        # Neutron tells of several that were made at once in one notification.
        (
            "port.create.end",
            {"ports": [{"id": "p1", "tenant_id": "p"}, {"id": "p2", "tenant_id": ""}]},
            {"user_id": "u"},
            [
                ("port", "gauge", 1, "port", "p1", "u", "p"),
                ("port", "gauge", 1, "port", "p2", "u", None),
                ("port.create", "delta", 1, "port", "p1", "u", "p"),
                ("port.create", "delta", 1, "port", "p2", "u", None),
            ],
        ),
        (
            "firewall.update.end",
            {"firewall": {"id": "f", "tenant_id": "p"}},
            {},
            [
                ("network.services.firewall", "gauge", 1, "firewall", "f", None, "p"),
                ("network.services.firewall.update", "delta", 1, "firewall", "f", None, "p"),
            ],
        ),
        (
            "sahara.cluster.create",
            {"cluster_id": "c", "project_id": "p"},
            {},
            [("cluster.create", "delta", 1, "cluster", "c", None, "p")],
        ),
        (
            "http.request",
            {
                "request": {
                    "HTTP_X_SERVICE_NAME": "nova",
                    "HTTP_X_USER_ID": "u",
                    "HTTP_X_PROJECT_ID": "p",
                    "PATH_INFO": "/v2.1/servers",
                }
            },
            {},
            [("http.request", "delta", 1, "request", "nova", "u", "p")],
        ),
    ],
)
def test_documented_notification_gives_the_documented_samples(
    event_type: str, payload: Any, context: dict[str, Any], expected: list[tuple[Any, ...]]
) -> None:
    assert [
        (each.name, each.type, each.volume, each.unit, each.resource_id, each.user_id, each.project_id)
        for each in samples_of(event_type, payload, **context)
    ] == expected


@pytest.mark.parametrize("event_type", ["network.delete.end", "compute.instance.create.error", "identity.project.seen"])
def test_notification_without_usage_gives_no_sample(event_type: str) -> None:
    assert samples_of(event_type, {}) == []


SENSORS: dict[str, Any] = {
    "node_uuid": "n",
    "timestamp": "2026-11-22T11:59:00",
    "payload": {
        "Temperature": {
            "CPU1": {"Sensor ID": "CPU1 Temp (0x1)", "Sensor Reading": "33 (+/- 0) degrees C", "Status": "ok"},
            "CPU2": {"Sensor ID": "CPU2 Temp (0x2)", "Sensor Reading": "Disabled"},
        },
        "Fan": {"F1": {"Sensor ID": "Fan 1 (0x30)", "Sensor Reading": "6960 (+/- 80) RPM"}},
        "Voltage": {"V": {"Sensor ID": "Volt (0x60)", "Sensor Reading": "3.137 (+/- 0) Volts"}},
        "Current": {
            "C": {"Sensor ID": "Avg Power (0x2e)", "Sensor Reading": "130 (+/- 0) Watts"},
            "P": {"Sensor ID": "Pwr Consumption (0x76)", "Sensor Reading": "154 (+/- 0) Watts"},
        },
        "Memory": {"x": {"Sensor ID": "x", "Sensor Reading": "0 errors"}},
    },
}


def test_sensor_readings_are_parsed_from_text() -> None:
    samples = samples_of("hardware.ipmi.metrics.update", SENSORS)
    assert [(each.name, each.volume, each.unit, each.resource_id) for each in samples] == [
        ("hardware.ipmi.temperature", 33.0, "C", "n-cpu1_temp_(0x1)"),
        ("hardware.ipmi.fan", 6960.0, "RPM", "n-fan_1_(0x30)"),
        ("hardware.ipmi.voltage", 3.137, "V", "n-volt_(0x60)"),
        ("hardware.ipmi.current", 130.0, "W", "n-avg_power_(0x2e)"),
    ]
    assert {each.timestamp for each in samples} == {datetime(2026, 11, 22, 11, 59, tzinfo=UTC)}
    assert samples[0].resource_metadata["Status"] == "ok"


def test_sensor_with_a_bad_reading_does_not_affect_others() -> None:
    broken = {"B": {"Sensor ID": "b", "Sensor Reading": "hot"}, "N": {}, "L": []}
    payload = SENSORS | {"payload": {"Temperature": broken} | {"Fan": SENSORS["payload"]["Fan"]}}
    listener = next(each for each in LISTENERS if each.name == "ironic.sensors")
    making = listener.samples(Notification("id", "hardware.ipmi.metrics", "ironic.c", "INFO", NOON, payload))
    samples: list[Sample] = []
    with pytest.raises(ValueError, match=r"Temperature B: Sensor Reading must be a number and a unit, not 'hot'; "):
        samples.extend(making)
    assert [each.name for each in samples] == ["hardware.ipmi.fan"]
