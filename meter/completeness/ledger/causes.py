"""Why samples are missing: the closed list of causes that the completeness ledger names."""

from __future__ import annotations

from typing import Literal
from typing import get_args

Cause = Literal[
    "agent not running",
    "pollster off",
    "poll failed",
    "domain hung",
    "skipped",
    "spool dropped",
    "rejected",
    "voided",
    "expired",
    "not finalized",
    "unknown",
]

STILL_RUNNING = "an earlier poll was still running"
"""The reason for a poll that did not take place, with the cause *skipped*: no sample of the pollster was made in the cycle."""

CAUSES: tuple[Cause, ...] = get_args(Cause)

EXPLANATIONS: dict[Cause, str] = {
    "agent not running": "no cycle report of the agent covers the time: it did not run, or its reports have not arrived",
    "pollster off": "a setting disables the pollster, or it does not apply on the agent's host",
    "poll failed": "the pollster was asked and failed",
    "domain hung": "libvirt could not read the domain, because its QEMU process did not respond",
    "skipped": "the agent skipped the cycle, because an earlier one took longer than its interval, or the pollster skipped"
    " the sample for a reason that it names",
    "spool dropped": "the spool of the agent was full, or too old, and dropped samples",
    "rejected": "the collector rejected the sample: it is a dead letter",
    "voided": "an administrator has voided the sample: the audit log says who did it and why",
    "expired": "the retention has deleted the samples",
    "not finalized": "the hour is not final yet: samples may still arrive",
    "unknown": "no report explains it, and the collector did not reject it",
}
"""What each cause means, as a clause."""
