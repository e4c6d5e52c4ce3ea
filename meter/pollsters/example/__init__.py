"""A complete pollster to copy: the load average of this host. It is disabled by default.

``docs/write-a-pollster.rst`` explains it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from pydantic import BaseModel
from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.sample import MeterDefinition
from meter.sample import Sample

LOAD = MeterDefinition("example.load", "gauge", "process")


class ExampleOptions(BaseModel):
    """The options in ``[pollsters.example]`` and their defaults. A daemon does not start with invalid values."""

    wanted: bool = False
    project_id: str | None = None


@implementer(IComputePollster)  # ICentralPollster for a pollster of the central agent
@dataclass(frozen=True)
class ExamplePollster:
    """Meters how many processes ran or waited to run, on average over the last minute."""

    options: ExampleOptions = field(default_factory=ExampleOptions)
    name = "example"
    meters = (LOAD,)

    def configured(self, options: ExampleOptions) -> ExamplePollster:
        """Return the pollster with the options from the configuration."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return, once at start, whether the pollster is applicable. Operators see the reason."""
        if not self.options.wanted:
            return Disabled("an example; [pollsters.example] wanted = true enables it")
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of now. Await what takes time; raise what goes wrong."""
        load, _, _ = os.getloadavg()
        return [
            Sample(
                name=LOAD.name,
                type=LOAD.type,
                unit=LOAD.unit,
                volume=load,
                resource_id=socket.gethostname(),
                project_id=self.options.project_id,
                timestamp=cycle.timestamp,
                resource_metadata={"processors": os.cpu_count()},
            )
        ]


example = ExamplePollster()
