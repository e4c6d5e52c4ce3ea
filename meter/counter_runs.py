"""Runs of counters: what a sample says of the run that it belongs to, and of how often it is polled.

Meter's agents say both in one reserved member of ``resource_metadata`` (``meter.sample.RESERVED_METADATA``)::

    "_meter": {"interval": 300, "run": "hv1/1764237600.12/vda+vdb"}

Samples of one run (of one meter, unit and resource) are of one counter that went on without interruption, or of a thing
that lived on. Whatever the member holds, the sample is stored: what cannot be a run or an interval counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any
from typing import NamedTuple
from typing import TypeGuard

from meter.sample import LONGEST_RUN
from meter.sample import RESERVED_METADATA
from meter.sample import SampleType

LONGEST_INTERVAL = 366 * 86_400
"""Seconds of a polling interval: a year. A longer one is taken for a mistake."""

INTERVALS_CARRIED = 3
"""The most polling intervals for which ``integral`` carries a volume: two polls in a row may fail."""


class RunKind(IntEnum):
    """What defines a run. The numbers are stored."""

    NONE = 0
    DECLARED = 1
    """Declared by the sample. Within it a counter never drops, and a gauge's resource existed."""
    INSTANCE_HOST = 2
    """Metadata of Ceilometer's agents name the host that the counter was read on, as ``instance_host``."""
    HOST = 3
    """They name it as ``host`` only. It may be a digest, so that it is not compared with names of ``instance_host``."""


class Run(NamedTuple):
    """The run of a sample. Runs are the same if both parts are; ``name`` is ``None`` where there is no run."""

    kind: RunKind
    name: str | None


NO_RUN = Run(RunKind.NONE, None)


def run_of(type: SampleType, metadata: Mapping[str, Any]) -> Run:
    """Return the run of a sample of this ``type`` with these ``metadata``."""
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
    """Return the polling interval in seconds that ``metadata`` contain, 0 if there is none."""
    reserved = metadata.get(RESERVED_METADATA)
    if isinstance(reserved, Mapping):
        interval: Any = reserved.get("interval")
        # The comparison comes first: an integer may be beyond every float.
        if type(interval) in (int, float) and 0 < interval <= LONGEST_INTERVAL:
            return float(interval)
    return 0.0


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_RUN
