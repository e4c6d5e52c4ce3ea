"""Nova's log of its usage audits: on how many hosts the last audit ran, how many instances it reported, and with how many errors.

An audit sends a notification ``compute.instance.exists`` for each instance of a host. The log says how many were sent,
and on which hosts the audit did not run; :mod:`meter.completeness.ledger.usage_audits` compares it with the notifications that arrived.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.openstack.catalogue import versioned
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import gauge
from meter.pollsters.openstack.table import number
from meter.sample import MeterDefinition
from meter.sample import Sample

MAX_HOSTS = 20
"""Hosts on which the audit did not run that the metadata list."""

RESOURCE = "nova.usage_audit"

FIELDS: Mapping[str, MeterDefinition] = {
    "num_hosts": gauge("nova.usage_audit.hosts", "host"),
    "num_hosts_done": gauge("nova.usage_audit.hosts.done", "host"),
    "num_hosts_running": gauge("nova.usage_audit.hosts.running", "host"),
    "num_hosts_not_run": gauge("nova.usage_audit.hosts.not_run", "host"),
    "total_instances": gauge("nova.usage_audit.instances", "instance"),
    "total_errors": gauge("nova.usage_audit.errors", "error"),
}
"""Fields of Nova's answer, and the meter of each."""


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class UsageAuditPollster:
    """Meters what Nova says about its last complete audit period."""

    options: None = None
    name: str = "nova.usage_audit"
    meters: tuple[MeterDefinition, ...] = tuple(FIELDS.values())

    def configured(self, options: None) -> UsageAuditPollster:
        """Return the pollster: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the catalogue has Nova."""
        return await enabled_with(context, "compute")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return a sample of each meter; ``Unavailable`` if the answer is not such a log."""
        openstack = cycle.provider(IOpenStack)
        base = versioned(await openstack.url("compute"), "v2.1")
        response = await openstack.request("compute", "os-instance_usage_audit_log", base=base)
        document = response.json()
        log = document.get("instance_usage_audit_logs") if isinstance(document, Mapping) else None
        if not isinstance(log, Mapping):
            raise Unavailable("the answer of os-instance_usage_audit_log has no instance_usage_audit_logs")
        try:
            volumes = {field: number(log.get(field), field) for field in FIELDS}
        except BadItem as error:
            raise Unavailable(f"the answer of os-instance_usage_audit_log cannot be used: {error}") from error
        metadata = _metadata(log)
        return [
            meter.sample(volumes[field], RESOURCE, cycle.timestamp, resource_metadata=metadata)
            for field, meter in FIELDS.items()
        ]


def _metadata(log: Mapping[str, Any]) -> dict[str, Any]:
    """Return the period, the hosts without an audit, and those with errors."""
    hosts = log.get("hosts_not_run")
    not_run = sorted(each for each in hosts if isinstance(each, str)) if isinstance(hosts, list) else []
    by_host = log.get("log")
    failed = [
        host
        for host, entry in sorted(by_host.items() if isinstance(by_host, Mapping) else ())
        if isinstance(entry, Mapping) and entry.get("errors")
    ]
    texts = {name: log[name] for name in ("period_beginning", "period_ending", "overall_status") if name in log}
    return {**texts, "hosts_not_run": not_run[:MAX_HOSTS], "hosts_with_errors": failed[:MAX_HOSTS]}
