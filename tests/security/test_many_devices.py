"""A guest that gets devices with ever other names does not fill the memory of its host's agent."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.pollsters.libvirt.replaced_devices import MAX_GONE
from meter.pollsters.libvirt.replaced_devices import ReplacedDevices

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PREFIX = "net.0."


def seen(devices: ReplacedDevices, name: str, minute: int, received: int) -> datetime | None:
    stats = {f"{PREFIX}rx.bytes": received}
    found = devices.replacement("net", name, stats, PREFIX, NOON + timedelta(minutes=minute), remember=True)
    return found.last_seen if found else None


def test_few_devices_that_are_gone_are_remembered() -> None:
    devices = ReplacedDevices()
    for minute in range(1000):
        seen(devices, "tap-stays", minute, minute)
        seen(devices, f"tap{minute}", minute, 1000)
        devices.forget_gone(2)
    assert len(devices) == 2 + MAX_GONE
    assert seen(devices, "tap-stays", 1000, 0) == NOON + timedelta(minutes=999)
    assert seen(devices, "tap998", 1000, 5) == NOON + timedelta(minutes=998)
    assert seen(devices, "tap1", 1000, 5) is None
