"""Names of metrics and of labels: those of Ceilometer's Prometheus exporter (``ceilometer/polling/prom_exporter.py``)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from meter.query import StoredMeter

PREFIX = "ceilometer_"

METER_LABEL = "meter"
"""The label with the name of the meter, on series of a metric that stands for several meters."""

SERIES_LABELS: Mapping[str, str] = {"resource": "resource_id", "project": "project_id", "user": "user_id"}
"""Labels that every series can have, each with the field of a sample that has its value; there is also ``unit``."""

UNIT_LABEL = "unit"

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

_NOT_IN_METRIC_NAMES = re.compile(r"[^a-zA-Z0-9_]")


def metric_name(meter: str) -> str:
    """Return the name of the metric of ``meter``: ``disk.read.bytes`` becomes ``ceilometer_disk_read_bytes``."""
    return PREFIX + _NOT_IN_METRIC_NAMES.sub("_", meter)


@dataclass(frozen=True, slots=True)
class NamedMeter:
    """A meter with its metric, and with the types and units that it has. ``ambiguous``: other meters have this metric too."""

    name: str
    metric: str
    types: tuple[str, ...]
    units: tuple[str, ...]
    ambiguous: bool


def named_meters(meters: Iterable[StoredMeter]) -> Sequence[NamedMeter]:
    """Return each meter once, sorted by metric and name."""
    types: defaultdict[str, set[str]] = defaultdict(set)
    units: defaultdict[str, set[str]] = defaultdict(set)
    same_metric: defaultdict[str, set[str]] = defaultdict(set)
    for meter in meters:
        types[meter.name].add(meter.type)
        units[meter.name].add(meter.unit)
        same_metric[metric_name(meter.name)].add(meter.name)
    return [
        NamedMeter(name, metric, tuple(sorted(types[name])), tuple(sorted(units[name])), len(names) > 1)
        for metric, names in sorted(same_metric.items())
        for name in sorted(names)
    ]
