"""What happened in the worked months of docs/statements-amounts.rst, as samples: by real listeners, and by a real agent."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any
from zoneinfo import ZoneInfo

from twisted.internet.task import Clock

from meter.collector.conversion import parse_notification
from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.message import MeteringMessage
from meter.message import seal
from meter.plugins.registry import LISTENER
from meter.plugins.registry import find
from meter.pollsters.libvirt import cpu
from meter.pollsters.libvirt import instance
from meter.pollsters.libvirt import memory
from meter.sample import Sample
from meter.settings import ComputeSection
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext
from tests.metered import with_stable_ids
from tests.polling_agent import PollingAgent
from tests.signed import received
from tests.store_messages import KEYS
from tests.worked_months import CLOUD_MONTH
from tests.worked_months import LIBVIRT_MONTH
from tests.worked_months import Row

NOTIFICATIONS = CLOUD_MONTH.folder.parents[1] / "notifications"


def cloud_messages() -> list[MeteringMessage]:
    """The messages of the month of three accounts: notifications of Nova and Cinder, and the counters of ports."""
    created: dict[str, datetime] = {}
    samples: list[Sample] = []
    for row in CLOUD_MONTH.rows("events.csv"):
        at = datetime.fromisoformat(row["time"]).astimezone(UTC)
        since = created.setdefault(row["resource"], at)
        if row["what"].startswith("compute."):
            samples += _heard(_instance(row, at, since))
        elif row["what"].startswith("volume."):
            samples += _heard(_volume(row, at, since))
        else:
            samples.append(_counted(row, at, since))
    return [received(sample, KEYS, "test") for sample in samples]


def _heard(content: dict[str, Any]) -> Iterator[Sample]:
    notification = parse_notification(seal(content))
    for decision in find([LISTENER]):
        listener = decision.plugin
        if any(fnmatchcase(notification.event_type, pattern) for pattern in listener.event_types):
            yield from with_stable_ids(notification, list(listener.samples(notification)))


def _instance(row: Row, at: datetime, since: datetime) -> dict[str, Any]:
    content = _notification("nova.compute.instance.exists.1", row, at)
    for name in ("audit_period_beginning", "audit_period_ending"):
        del content["payload"][name]
    content["payload"] |= {
        "instance_id": row["resource"],
        "tenant_id": row["project"],
        "display_name": row["resource"],
        "instance_type": row["value"],
        "state": row["state"],
        "created_at": _naive(since),
        "launched_at": _naive(since),
    }
    if row["state"] == "deleted":
        content["payload"] |= {"deleted_at": _naive(at), "terminated_at": _naive(at)}
    return content


def _volume(row: Row, at: datetime, since: datetime) -> dict[str, Any]:
    content = _notification("openstack.volume.create.end", row, at)
    content["payload"] |= {
        "volume_id": row["resource"],
        "tenant_id": row["project"],
        "display_name": row["resource"],
        "size": int(row["value"]),
        "status": row["state"],
        "created_at": since.isoformat(),
    }
    return content


def _notification(captured: str, row: Row, at: datetime) -> dict[str, Any]:
    text = (NOTIFICATIONS / f"{captured}.json").read_text(encoding="utf-8")
    content: dict[str, Any] = copy.deepcopy(json.loads(text)["message"])
    id = f"{row['resource']} {row['time']} {row['what']}"
    return content | {"event_type": row["what"], "timestamp": _naive(at), "message_id": id, "_context_request_id": id}


def _counted(row: Row, at: datetime, since: datetime) -> Sample:
    return Sample(
        name=row["what"],
        type="cumulative",
        unit="B",
        volume=int(row["value"]),
        resource_id=row["resource"],
        user_id=None,
        project_id=row["project"],
        timestamp=at,
        resource_metadata={"_meter": {"interval": 300, "run": since.isoformat()}},
        message_id=f"{row['resource']} {row['time']}",
    )


def _naive(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat()


# --- a host without OpenStack ---

POLLSTERS = (instance, cpu, memory)
STATES = {
    "started": {"state.state": 1, "state.reason": 1},
    "resumed": {"state.state": 1, "state.reason": 1},
    "paused": {"state.state": 3, "state.reason": 1},
    "stopped": {"state.state": 5, "state.reason": 1},
    "defined": {"state.state": 5, "state.reason": 1},
}
EVENTS = {
    "started": "started (booted)",
    "resumed": "resumed (unpaused)",
    "paused": "suspended (paused)",
    "stopped": "stopped (destroyed)",
}
POLLED_EVERY = timedelta(hours=6)


async def libvirt_messages() -> list[MeteringMessage]:
    """The messages of a compute agent that polls five domains every 6 hours, and at their events."""
    host = _Host()
    # 12:00 on 30 September until the end of October, by the clock of the host, which goes back once.
    first = datetime(2026, 9, 30, 12, tzinfo=ZoneInfo("Europe/Paris"))
    times = {(first + number * POLLED_EVERY).astimezone(UTC) for number in range(127)}
    events: dict[datetime, list[Row]] = {}
    for row in LIBVIRT_MONTH.rows("events.csv"):
        events.setdefault(datetime.fromisoformat(row["time"]).astimezone(UTC), []).append(row)
    for at in sorted({*times, *events}):
        await host.poll(at, events.get(at, []), polled=at in times or at.month == 10)
    return [received(sample, KEYS, "test") for sample in host.agent.samples]


class _Config:
    """A configuration with ``[compute]`` only, with the owners of the month."""

    def __init__(self) -> None:
        owners = tomllib.loads((LIBVIRT_MONTH.folder / "owners.toml").read_text(encoding="utf-8"))
        self.compute = ComputeSection(host="host1", **owners["compute"])


class _Host:
    def __init__(self) -> None:
        self.hypervisor = FakeHypervisor(uri="qemu:///system")
        self._clock = Clock()
        context = FakePluginContext({IHypervisor: self.hypervisor}, clock=self._clock, config=_Config())
        self.agent = PollingAgent(POLLSTERS, context, POLLED_EVERY.total_seconds())
        self._rows: dict[str, Row] = {}
        self._busy: dict[str, float] = {}
        self._runs: dict[str, int] = {}
        self._last: datetime | None = None

    async def poll(self, at: datetime, events: Sequence[Row], *, polled: bool) -> None:
        """Let time pass until ``at``, when something happens or is polled."""
        for name, row in self._rows.items():
            if self._last is not None and row["event"] in ("started", "resumed"):
                self._busy[name] += float(row["busy_cores"]) * (at - self._last).total_seconds()
        for row in events:
            name = row["domain"]
            if row["event"] == "undefined":
                del self._rows[name]
                continue
            self._rows[name] = row
            if row["event"] in ("started", "defined"):
                self._busy[name], self._runs[name] = 0.0, self._runs.get(name, 0) + 1
        self._last = at
        happened = {row["domain"]: EVENTS.get(row["event"]) for row in events}
        self.hypervisor.running = [self._domain(name, row, at, happened.get(name)) for name, row in self._rows.items()]
        if polled:
            self._clock.advance(max(0.0, at.timestamp() - self._clock.seconds()))
            await self.agent.cycle()

    def _domain(self, name: str, row: Row, at: datetime, event: str | None) -> Domain:
        stats = dict(STATES[row["event"]])
        is_on = stats["state.state"] != 5
        if is_on:
            stats |= {
                "balloon.current": int(row["memory_mib"]) * 1024,
                "vcpu.current": 1,
                "vcpu.maximum": 1,
                "vcpu.0.state": 1,
                "vcpu.0.wait": 0,
                "vcpu.0.time": round(self._busy[name] * 10**9),
            }
        xml = f"<domain><name>{name}</name></domain>"
        run = self._runs[name] if is_on else None
        return Domain(uuid=name, name=name, xml=xml, stats=stats, run=run, read_at=at, event=event)
