"""How the energy of a host is shared by its domains: parts that add up to the whole, to the last unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

HOST = ""
"""The key of the host's own share: what no domain has used, and idle processors that no domain has reserved."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What is known of the time between two polls.

    ``busy`` and ``all`` are the times of the host's processors, in any unit; ``busy_ns`` is the former in nanoseconds. ``cpu_ns`` is the
    CPU time that each domain took, ``vcpus`` its virtual processors, less for one that did not exist all the time. ``processors`` is
    the number of the host's.
    """

    busy: int
    all: int
    busy_ns: int
    processors: int
    cpu_ns: Mapping[str, int]
    vcpus: Mapping[str, Fraction]


def shares(energy: int, interval: Interval, *, share_idle: bool) -> dict[str, int]:
    """Return the parts of ``energy`` by domain, and that of the host; together they are ``energy``.

    The active part, in proportion to the time that processors worked, is shared by CPU time. The rest is shared by virtual processors if
    ``share_idle``, and is the host's otherwise.
    """
    active = Fraction(energy * interval.busy, interval.all) if interval.all > 0 else Fraction(0)
    idle = energy - active
    used = max(interval.busy_ns, sum(interval.cpu_ns.values()), 1)
    reserved = max(Fraction(interval.processors), sum(interval.vcpus.values(), Fraction(0)), Fraction(1))
    exact = {name: active * cpu / used for name, cpu in interval.cpu_ns.items()}
    if share_idle:
        for name, vcpus in interval.vcpus.items():
            exact[name] = exact.get(name, Fraction(0)) + idle * vcpus / reserved
    exact[HOST] = energy - sum(exact.values(), Fraction(0))
    return _whole(energy, exact)


def proportional(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Return the parts of ``total`` by ``weights``, together ``total``. Without any weight all of it is the host's."""
    weight = sum(weights.values())
    if weight <= 0:
        return {**dict.fromkeys(weights, 0), HOST: total}
    return _whole(total, {name: Fraction(total * each, weight) for name, each in weights.items()})


def _whole(total: int, exact: Mapping[str, Fraction]) -> dict[str, int]:
    """Return ``exact`` in whole units: rounded down, with what is left for those that lost most."""
    found = {name: int(part) for name, part in exact.items()}
    order = sorted(exact, key=lambda name: (found[name] - exact[name], name))
    for name in order[: total - sum(found.values())]:
        found[name] += 1
    return found
