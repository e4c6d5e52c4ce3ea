"""What is known about a meter of a resource: what ``meter-doctor why`` judges."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from fnmatch import fnmatchcase

from meter.bus.amqp import QueueState
from meter.bus.dead_letters import DeadLetter
from meter.commands.doctor.daemons import DaemonState
from meter.completeness_query import FOLLOWING_INTERVALS
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.store import SampleTrace

DEFAULT_INTERVAL = 300.0
"""Assumed where nothing tells the polling interval, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about ``meter`` of ``resource`` at the time ``at``; ``None`` is what could not be looked at, and why not.

    ``project`` is the project that asks, empty for an administrator. ``plugins`` are all that are installed on this host,
    configured. ``queues`` are states of Meter's queues by name, ``letters`` dead letters that name the resource and the meter.
    """

    resource: str
    meter: str
    at: datetime
    now: datetime
    project: str = ""
    plugins: Sequence[Decision] = ()
    trace: SampleTrace | None = None
    daemons: Sequence[DaemonState] = ()
    queues: Mapping[str, QueueState | None] | None = None
    letters: Sequence[DeadLetter] | None = None
    letters_left: int = 0
    """The number of dead letters that were not searched, the newest ones."""
    not_looked_at: Mapping[str, str] | None = None
    """Why the database, the broker or the dead letters could not be looked at, by their names."""

    @property
    def makers(self) -> list[Decision]:
        """The installed plugins that declare the meter; not those that may make samples of any meter, which says nothing."""
        return [
            each
            for each in self.plugins
            if each.plugin is not None
            and any(meter.name != "*" and fnmatchcase(self.meter, meter.name) for meter in each.plugin.meters)
        ]

    @property
    def interval(self) -> float:
        """The polling interval in seconds, as agents or the newest samples state it; 0 if the meter is not polled."""
        if self.trace is not None:
            known = [each.interval for each in self.trace.metered] + [each.interval for each in self.trace.newest]
            if stated := [interval for interval in known if interval]:
                return stated[0]
        polled = any(each.kind is not LISTENER for each in self.makers)
        return DEFAULT_INTERVAL if polled else 0.0

    @property
    def arrives(self) -> bool:
        """Whether a sample is stored that is as new as can be expected at the time."""
        if self.trace is None or not self.trace.newest:
            return False
        newest, following = self.trace.newest[0].timestamp, self.trace.next
        if not self.interval:
            return True
        if following is not None and in_gap(self.at, newest, following, self.interval):
            return False
        return newest >= self.at - timedelta(seconds=2 * self.interval)


def in_gap(at: datetime, last: datetime, following: datetime, interval: float) -> bool:
    """Return whether something was due between ``last`` and ``following``, and at or before ``at``.

    A tenth of an interval is allowed for: a sample is taken some time after its cycle was due.
    """
    step = timedelta(seconds=interval)
    return following - last > FOLLOWING_INTERVALS * step and last + 0.9 * step <= at < following
