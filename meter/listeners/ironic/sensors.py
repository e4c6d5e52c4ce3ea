"""The sensors of bare metal nodes, from the readings of IPMI that Ironic's conductor publishes: texts, which no path reads."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from typing import Self

from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IListener
from meter.interfaces import IPluginContext
from meter.interfaces import Topic
from meter.message import parse_timestamp
from meter.notification import Notification
from meter.sample import MeterDefinition
from meter.sample import Sample

METERS = {
    "Temperature": MeterDefinition("hardware.ipmi.temperature", "gauge", "C"),
    "Current": MeterDefinition("hardware.ipmi.current", "gauge", "A"),
    "Fan": MeterDefinition("hardware.ipmi.fan", "gauge", "RPM"),
    "Voltage": MeterDefinition("hardware.ipmi.voltage", "gauge", "V"),
    "Power": MeterDefinition("hardware.ipmi.power", "gauge", "W"),
}
"""The meter of each group of sensors; the unit of a sample is the one its reading names."""

UNITS = {"Watts": "W", "Volts": "V", "Amps": "A"}
"""Units that IPMI writes out."""

SILENT = frozenset({"Disabled", "No Reading", ""})
"""What a sensor reads that has nothing to say."""


@implementer(IListener)
@dataclass(frozen=True, slots=True)
class SensorListener:
    """Says what each sensor of a node reads: ``33 (+/- 1) degrees C``."""

    name: str = "ironic.sensors"
    meters: tuple[MeterDefinition, ...] = tuple(METERS.values())
    options: None = None
    topics: tuple[Topic, ...] = (Topic("ironic"),)
    event_types: tuple[str, ...] = ("hardware.ipmi.*",)

    def configured(self, options: None) -> Self:
        """Return itself: there is nothing to choose."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return :class:`Enabled`: hearing nothing costs nothing."""
        return Enabled()

    def samples(self, notification: Notification) -> Iterator[Sample]:
        """Yield a sample of each sensor that reads anything, then raise ``ValueError`` for those that make no sense."""
        payload = _mapping(notification.payload, "payload")
        node = payload.get("node_uuid")
        if not isinstance(node, str) or not node:
            raise ValueError(f"payload.node_uuid must be a non-empty text, not {node!r:.60}")
        when = payload.get("timestamp")
        measured = (
            parse_timestamp(when, "payload.timestamp") if isinstance(when, str) and when else notification.timestamp
        )
        wrong = []
        for group, sensors in _mapping(payload.get("payload"), "payload.payload").items():
            if group not in METERS:
                continue
            for name, sensor in _mapping(sensors, f"payload.payload.{group:.60}").items():
                try:
                    yield from _read(group, sensor, node, measured, notification)
                except ValueError as error:
                    wrong.append(f"{group} {name:.60}: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))


def _read(group: str, sensor: Any, node: str, measured: datetime, notification: Notification) -> Iterator[Sample]:
    fields = _mapping(sensor, "the sensor")
    sensor_id, reading = fields.get("Sensor ID"), fields.get("Sensor Reading")
    if not isinstance(sensor_id, str) or not sensor_id:
        raise ValueError(f"Sensor ID must be a non-empty text, not {sensor_id!r:.60}")
    if group == "Current" and "Pwr Consumption" in sensor_id:
        return  # a power among the currents
    if reading is None or reading in SILENT:
        return
    volume, unit = _quantity(reading)
    yield Sample(
        name=METERS[group].name,
        type="gauge",
        unit=unit or METERS[group].unit,
        volume=volume,
        resource_id=f"{node}-{sensor_id.lower().replace(' ', '_')}",
        timestamp=measured,
        resource_metadata={
            **fields,
            "node": node,
            "event_type": notification.event_type,
            "host": notification.publisher_id.partition(".")[2] or notification.publisher_id,
        },
    )


def _quantity(reading: Any) -> tuple[float, str]:
    """Return number and unit of ``33 (+/- 1) degrees C``."""
    number, _, rest = reading.partition(" ") if isinstance(reading, str) else ("", "", "")
    try:
        volume = float(number)
    except ValueError:
        raise ValueError(f"Sensor Reading must be a number and a unit, not {reading!r:.60}") from None
    unit = rest.rpartition(" ")[2]
    return volume, UNITS.get(unit, unit)


def _mapping(value: Any, label: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{label} must be a mapping, not a {type(value).__name__}")
    return value
