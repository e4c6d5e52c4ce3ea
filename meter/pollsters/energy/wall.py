"""Sums of what the whole host takes, as its BMC counts it, shared in proportion to the shares of its processors' energy.

The counter of a BMC is coarse, up to a kWh, and may be away, begin again, or be that of another BMC. So energy is shared from one change of
the counter to the next, and whenever the energy of such a time is not certain, it is in no sum, and all sums begin again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from meter.pollsters.energy.ledger import EnergyLedger
from meter.pollsters.energy.shares import HOST
from meter.pollsters.energy.shares import proportional


@dataclass(frozen=True, slots=True)
class WallCounter:
    """The energy of a chassis in joules, since the time ``since`` as the BMC names it: ``""`` if it does not."""

    since: str
    joules: Fraction


@dataclass(frozen=True, slots=True)
class WallReading:
    """The counters of all chassis of the host; ``seconds`` is the time of a clock that cannot be set."""

    at: datetime
    seconds: float
    counters: Mapping[str, WallCounter]


@dataclass(frozen=True, slots=True)
class _Base:
    """The state at the last change of the counter. The change was after ``after_seconds``, the time of the reading before."""

    after_seconds: float
    domains_j: Mapping[tuple[str, str], int]
    total_j: int


class UncertainEnergy(Exception):
    """How much energy was taken since the last change of the counter is not certain; the text says why."""


class WallLedger:
    """Sums in whole joules. What a change of the counter does not fill up to a joule is kept for the next.

    ``since`` is when the sums began, at 0, with a change of the counter: ``None`` before the first. The sum of all domains that ever were,
    ``domains_j``, and of the host, ``host_j``, is the increase of the counter since then.
    """

    def __init__(self, first: WallReading, rapl: EnergyLedger, max_watts: float) -> None:
        self.since: datetime | None = None
        self.domains_j: dict[tuple[str, str], int] = {}
        self.host_j = 0
        self.last = first
        self._rapl = rapl
        self._max_watts = max_watts
        self._rest = Fraction(0)
        self._base: _Base | None = None

    def take(self, reading: WallReading, rapl: EnergyLedger) -> None:
        """Add what was taken since the last change; raise :class:`UncertainEnergy`, after which this ledger is of no use."""
        if rapl is not self._rapl:
            raise UncertainEnergy("the energy of the processors, by which it is shared, is not known")
        increase = self._increase(reading)
        last, self.last = self.last, reading
        if increase:
            base = self._base
            self._base = _Base(last.seconds, dict(rapl.domains_j), _total(rapl))
            if base is None:
                self.since = reading.at
            else:
                self._add(increase, reading.seconds - base.after_seconds, base)
        self.domains_j = {key: self.domains_j.get(key, 0) for key in rapl.domains_j}

    def _increase(self, reading: WallReading) -> Fraction:
        if reading.counters.keys() != self.last.counters.keys():
            raise UncertainEnergy("the BMC has other chassis")
        for chassis, now in reading.counters.items():
            last = self.last.counters[chassis]
            if now.since != last.since or now.joules < last.joules:
                raise UncertainEnergy(f"the counter of chassis {chassis} has begun again")
        return sum(
            (each.joules - self.last.counters[name].joules for name, each in reading.counters.items()), Fraction(0)
        )

    def _add(self, increase: Fraction, seconds: float, base: _Base) -> None:
        if increase > Fraction(self._max_watts) * Fraction(max(0.0, seconds)):
            raise UncertainEnergy(
                f"the counter has grown by {float(increase):.0f} J in {seconds:.0f} s: more than max_watts, {self._max_watts:g} W"
            )
        exact = self._rest + increase
        joules = exact.numerator // exact.denominator
        self._rest = exact - joules
        weights = {}
        for (name, run), now in self._rapl.domains_j.items():
            then = base.domains_j.get((name, run), 0)
            weights[name] = now - then if now >= then else now  # less: its use could not be read for a while
        weights[HOST] = _total(self._rapl) - base.total_j - sum(weights.values())
        parts = proportional(joules, weights)
        self.host_j += parts.pop(HOST)
        for name, run in self._rapl.domains_j:
            self.domains_j[name, run] = self.domains_j.get((name, run), 0) + parts[name]


def _total(rapl: EnergyLedger) -> int:
    return sum(rapl.zones_j.values())
