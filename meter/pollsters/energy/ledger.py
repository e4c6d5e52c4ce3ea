"""Sums of energy since the agent began to measure: of the host's zones, of each domain, and of the host itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from meter.pollsters.energy.rapl import CpuTimes
from meter.pollsters.energy.rapl import EnergyZone
from meter.pollsters.energy.shares import HOST
from meter.pollsters.energy.shares import Interval
from meter.pollsters.energy.shares import shares


@dataclass(frozen=True, slots=True)
class DomainUse:
    """A running domain at a poll: its run, the CPU time of its run, its virtual processors, and when its run began if that is known."""

    run: str
    cpu_ns: int
    vcpus: int
    began_at: datetime | None


@dataclass(frozen=True, slots=True)
class EnergyPoll:
    """What one poll read; ``seconds`` is the time of a clock that cannot be set."""

    at: datetime
    seconds: float
    readings_uj: Mapping[str, int]
    times: CpuTimes
    domains: Mapping[str, DomainUse]


class EnergyLedger:
    """Sums in whole joules, made poll by poll. What a poll does not fill up to a joule is kept for the next.

    ``since`` is when the sums began, at 0; ``zones_j``, ``domains_j`` and ``host_j`` are the sums. The sum of all domains that ever were and
    of the host is that of the zones.
    """

    def __init__(self, zones: list[EnergyZone], processors: int, ticks_per_second: int, first: EnergyPoll) -> None:
        self.since = first.at
        self.zones_j = {zone.name: 0 for zone in zones}
        self.domains_j: dict[tuple[str, str], int] = {}
        self.host_j = 0
        self._zones = zones
        self._processors = processors
        self._ns_per_tick = 10**9 // ticks_per_second
        self._last = first
        self._rest_uj = {zone.name: 0 for zone in zones}
        self._begin(first)

    def take(self, poll: EnergyPoll, *, share_idle: bool) -> bool:
        """Add the energy since the last poll; return false, and add nothing, if it is not known."""
        seconds = poll.seconds - self._last.seconds
        increases: dict[str, int] = {}
        for zone in self._zones:
            increase = zone.increase_uj(self._last.readings_uj[zone.name], poll.readings_uj[zone.name], seconds)
            if increase is None:
                return False
            increases[zone.name] = increase
        energy = 0
        for name, increase in increases.items():
            joules, self._rest_uj[name] = divmod(self._rest_uj[name] + increase, 10**6)
            self.zones_j[name] += joules
            energy += joules
        self._begin(poll)
        for name, part in shares(energy, self._interval(poll), share_idle=share_idle).items():
            if name == HOST:
                self.host_j += part
            else:
                self.domains_j[name, poll.domains[name].run] += part
        self._last = poll
        return True

    @property
    def last_at(self) -> datetime:
        """The time of the last poll whose energy is in the sums."""
        return self._last.at

    def began_before(self, poll: EnergyPoll, name: str) -> datetime:
        """Return the time at which the sum of a domain that is new in ``poll`` was 0: its start, or the last poll before it."""
        began = poll.domains[name].began_at
        return self._last.at if began is None else max(self._last.at, began)

    def is_new(self, name: str, run: str) -> bool:
        """Return whether the run of a domain has no sum yet."""
        return (name, run) not in self.domains_j

    def _begin(self, poll: EnergyPoll) -> None:
        """Begin the sums of new runs, and forget those that have ended."""
        running = {(name, each.run) for name, each in poll.domains.items()}
        self.domains_j = {key: self.domains_j.get(key, 0) for key in running}

    def _interval(self, poll: EnergyPoll) -> Interval:
        busy = poll.times.busy - self._last.times.busy
        return Interval(
            busy=max(0, busy),
            all=max(0, poll.times.all - self._last.times.all),
            busy_ns=max(0, busy) * self._ns_per_tick,
            processors=self._processors,
            cpu_ns={name: self._cpu_ns(name, each) for name, each in poll.domains.items()},
            vcpus={name: each.vcpus * self._presence(poll, name, each) for name, each in poll.domains.items()},
        )

    def _cpu_ns(self, name: str, now: DomainUse) -> int:
        """Return the CPU time since the last poll; of a run that came from elsewhere, and may have counted there, none."""
        last = self._last.domains.get(name)
        if last is not None and last.run == now.run:
            return max(0, now.cpu_ns - last.cpu_ns)
        return now.cpu_ns if now.began_at is not None and now.began_at >= self._last.at else 0

    def _presence(self, poll: EnergyPoll, name: str, now: DomainUse) -> Fraction:
        """Return the part of the interval in which the domain ran."""
        last = self._last.domains.get(name)
        if (last is not None and last.run == now.run) or now.began_at is None or now.began_at <= self._last.at:
            return Fraction(1)
        whole = (poll.at - self._last.at).total_seconds()
        return (
            Fraction((poll.at - now.began_at).total_seconds() / whole)
            if whole > 0 and now.began_at < poll.at
            else Fraction(0)
        )
