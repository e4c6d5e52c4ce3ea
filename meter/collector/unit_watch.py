"""Logs meters that arrive in two units, because statistics keep the two apart."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from meter.message import MeteringMessage
from meter.units import binary_name

MOST_METERS = 10_000
"""How many meters' units are remembered. ``instance:*`` alone may be thousands."""


class UnitWatch:
    """Logs each meter that arrives in more than one unit, once for each further unit."""

    _log = Logger()

    def __init__(self) -> None:
        self._units: dict[str, set[str]] = {}

    def see(self, messages: Iterable[MeteringMessage]) -> None:
        """Take messages that were stored."""
        for message in messages:
            units = self._units.get(message.name)
            if units is None:
                if len(self._units) < MOST_METERS:
                    self._units[message.name] = {message.unit}
            elif message.unit not in units:
                self._tell(message, units)
                units.add(message.unit)

    def _tell(self, message: MeteringMessage, units: set[str]) -> None:
        same = any(binary_name(message.unit) == binary_name(each) for each in units)
        self._log.warn(
            "meter {meter} arrives in {unit} now, from {source}, and arrived in {others} before: statistics have a row"
            " for each unit{hint}",
            meter=message.name,
            unit=message.unit or "no unit",
            source=message.source,
            others=", ".join(sorted(units)) or "no unit",
            hint="; [units] binary makes agents and collectors use one name" if same else "",
        )
