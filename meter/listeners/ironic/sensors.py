"""Sensors of bare metal nodes, from the IPMI readings in Ironic's notifications, which are texts such as ``33 (+/- 1) degrees C``."""

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
"""The meter of each group of sensors. The unit of a sample is that of its reading."""

UNITS = {"Watts": "W", "Volts": "V", "Amps": "A"}
"""Units that IPMI spells out, and their symbols."""

NO_READING = frozenset({"Disabled", "No Reading", ""})
"""Readings of sensors that measure nothing."""


@implementer(IListener)
@dataclass(frozen=True, slots=True)
class SensorListener:
    """Makes a sample of the reading of each sensor of a node."""

    name: str = "ironic.sensors"
    meters: tuple[MeterDefinition, ...] = tuple(METERS.values())
    options: None = None
    topics: tuple[Topic, ...] = (Topic("ironic"),)
    event_types: tuple[str, ...] = ("hardware.ipmi.*",)

    def configured(self, options: None) -> Self:
        """Return itself: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return :class:`Enabled`: a subscription without notifications costs nothing."""
        return Enabled()

    def samples(self, notification: Notification) -> Iterator[Sample]:
        """Yield a sample of each sensor with a reading, then raise ``ValueError`` for those whose reading is not valid."""
        payload = _mapping(notification.payload, "payload")
        node = payload.get("node_uuid")
        if not isinstance(node, str) or not node:
            raise ValueError(f"payload.node_uuid must be a non-empty text, not {node!r:.60}")
        when = payload.get("timestamp")
        measured = (
            parse_timestamp(when, "payload.timestamp") if isinstance(when, str) and when else notification.timestamp
        )
        problems = []
        for group, sensors in _mapping(payload.get("payload"), "payload.payload").items():
            if group not in METERS:
                continue
            for name, sensor in _mapping(sensors, f"payload.payload.{group:.60}").items():
                try:
                    yield from _sensor_samples(group, sensor, node, measured, notification)
                except ValueError as error:
                    problems.append(f"{group} {name:.60}: {error}")
        if problems:
            raise ValueError("; ".join(problems))


def _sensor_samples(
    group: str, sensor: Any, node: str, measured: datetime, notification: Notification
) -> Iterator[Sample]:
    fields = _mapping(sensor, "the sensor")
    sensor_id, reading = fields.get("Sensor ID"), fields.get("Sensor Reading")
    if not isinstance(sensor_id, str) or not sensor_id:
        raise ValueError(f"Sensor ID must be a non-empty text, not {sensor_id!r:.60}")
    if group == "Current" and "Pwr Consumption" in sensor_id:
        return  # this sensor reports power
    if reading is None or reading in NO_READING:
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
