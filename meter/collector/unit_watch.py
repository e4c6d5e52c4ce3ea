"""Warns of meters that arrive in two units, because statistics are computed per unit."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.daemon.log_window import LogWindow
from meter.message import MeteringMessage
from meter.units import binary_name

MAX_METERS = 10_000
"""Meters whose units are remembered; ``instance:*`` alone may be thousands."""

MAX_UNITS = 5
"""Units of one meter that are remembered and logged."""

MAX_NAME = 64
"""Characters of a unit that are remembered, compared and logged."""

MAX_LINES = 50
"""Maximum number of lines in a window, over all meters."""


class UnitWatch:
    """Logs each meter that arrives in more than one unit, once for each further unit up to :data:`MAX_UNITS`.

    Clients of the API choose meters and units, so memory and lines are limited: a meter in more units gets one last line, and
    what exceeds :data:`MAX_LINES` in a window is counted, and logged when it arrives again in a later one.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._units: dict[str, set[str]] = {}
        self._exceeded: set[str] = set()
        self._window = LogWindow()
        self._lines = 0
        self._not_logged = 0

    def observe(self, messages: Iterable[MeteringMessage]) -> None:
        """Check the messages of a committed batch."""
        for message in messages:
            units = self._units.get(message.name)
            unit = message.unit[:MAX_NAME]
            if units is None:
                if len(self._units) < MAX_METERS:
                    self._units[message.name] = {unit}
            elif unit not in units and message.name not in self._exceeded and self._may_log():
                if len(units) < MAX_UNITS:
                    self._warn(message, unit, units)
                    units.add(unit)
                else:
                    self._exceeded.add(message.name)
                    self._log.warn(
                        "meter {meter} arrives in more than {count} units, now from source {source}: further units of it"
                        " are not logged",
                        meter=message.name,
                        count=MAX_UNITS,
                        source=message.source,
                    )

    def _may_log(self) -> bool:
        """Return whether the window has room for a line, and count it."""
        if self._window.begins(self._clock.seconds()):
            if self._not_logged:
                self._log.warn("{count} more samples arrived in a further unit of their meter", count=self._not_logged)
            self._lines, self._not_logged = 0, 0
        if self._lines >= MAX_LINES:
            self._not_logged += 1
            return False
        self._lines += 1
        return True

    def _warn(self, message: MeteringMessage, unit: str, units: set[str]) -> None:
        same_unit = any(binary_name(unit) == binary_name(each) for each in units)
        self._log.warn(
            "meter {meter} now arrives in unit {unit} from source {source}, and arrived in {others} before: statistics are"
            " computed separately for each unit{hint}",
            meter=message.name,
            unit=unit or "no unit",
            source=message.source,
            others=", ".join(sorted(units)) or "no unit",
            hint="; set [units] binary to the same value on all agents and collectors" if same_unit else "",
        )
