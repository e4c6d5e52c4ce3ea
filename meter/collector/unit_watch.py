"""Warns of meters that arrive in two units, because statistics are computed per unit."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from meter.message import MeteringMessage
from meter.units import binary_name

MAX_METERS = 10_000
"""Meters whose units are remembered; ``instance:*`` alone may be thousands."""


class UnitWatch:
    """Logs each meter that arrives in more than one unit, once for each further unit."""

    _log = Logger()

    def __init__(self) -> None:
        self._units: dict[str, set[str]] = {}

    def observe(self, messages: Iterable[MeteringMessage]) -> None:
        """Check the messages of a committed batch."""
        for message in messages:
            units = self._units.get(message.name)
            if units is None:
                if len(self._units) < MAX_METERS:
                    self._units[message.name] = {message.unit}
            elif message.unit not in units:
                self._warn(message, units)
                units.add(message.unit)

    def _warn(self, message: MeteringMessage, units: set[str]) -> None:
        same_unit = any(binary_name(message.unit) == binary_name(each) for each in units)
        self._log.warn(
            "meter {meter} now arrives in unit {unit} from source {source}, and arrived in {others} before: statistics are"
            " computed separately for each unit{hint}",
            meter=message.name,
            unit=message.unit or "no unit",
            source=message.source,
            others=", ".join(sorted(units)) or "no unit",
            hint="; set [units] binary to the same value on all agents and collectors" if same_unit else "",
        )
