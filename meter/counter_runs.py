"""Runs of counters: which run a sample belongs to, and its polling interval.

Meter's agents write both to a reserved member of ``resource_metadata`` (``meter.sample.RESERVED_METADATA``)::

    "_meter": {"interval": 300, "run": "hv1/1764237600.12/disks"}

Between samples of one run (of one meter, unit and resource) the counter was not reset, or the resource existed without
interruption. An invalid run or interval counts as absent; the sample is stored all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any
from typing import NamedTuple
from typing import TypeGuard

from meter.sample import MAX_RUN
from meter.sample import RESERVED_METADATA
from meter.sample import SampleType

MAX_INTERVAL = 366 * 86_400
"""Longest polling interval in seconds, a year; a longer one counts as absent."""

INTERVALS_CARRIED = 3
"""Polling intervals for which ``integral`` carries a volume forward at most: two polls in a row may fail."""


class RunKind(IntEnum):
    """What identifies a run. The numbers are stored in the database."""

    NONE = 0
    DECLARED = 1
    """By ``run`` in the sample. Within it a counter never decreases, and the resource of a gauge exists."""
    INSTANCE_HOST = 2
    """By the host of the counter in the metadata of Ceilometer's agents, ``instance_host``."""
    HOST = 3
    """By ``host``, if there is no ``instance_host``. It may be a digest, so it is not compared with ``instance_host``."""


class Run(NamedTuple):
    """The run of a sample. Runs are the same if both fields are equal; ``name`` is ``None`` without a run."""

    kind: RunKind
    name: str | None


NO_RUN = Run(RunKind.NONE, None)


def run_of(type: SampleType, metadata: Mapping[str, Any]) -> Run:
    """Return the run of a sample with this type and these metadata."""
    reserved = metadata.get(RESERVED_METADATA)
    if isinstance(reserved, Mapping):
        name = reserved.get("run")
        if _is_name(name):
            return Run(RunKind.DECLARED, name)
    if type == "cumulative":
        host = metadata.get("instance_host")
        if _is_name(host):
            return Run(RunKind.INSTANCE_HOST, host)
        host = metadata.get("host")
        if _is_name(host):
            return Run(RunKind.HOST, host)
    return NO_RUN


def interval_of(metadata: Mapping[str, Any]) -> float:
    """Return the polling interval in ``metadata``, in seconds, 0 if there is none."""
    reserved = metadata.get(RESERVED_METADATA)
    if isinstance(reserved, Mapping):
        interval: Any = reserved.get("interval")
        # Compared before the conversion: an integer may be too large for a float.
        if type(interval) in (int, float) and 0 < interval <= MAX_INTERVAL:
            return float(interval)
    return 0.0


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_RUN
