"""A complete pollster to copy: the load of this host. It is off until its option says otherwise.

``docs/write-a-pollster.rst`` walks through it.
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
    """What may stand in the section ``[pollsters.example]``, with defaults. Wrong values stop the daemon's start."""

    wanted: bool = False
    project_id: str | None = None


@implementer(IComputePollster)  # ICentralPollster for what one agent per region should ask
@dataclass(frozen=True)
class ExamplePollster:
    """Processes that ran or waited to run, on average over the last minute."""

    options: ExampleOptions = field(default_factory=ExampleOptions)
    name = "example"
    meters = (LOAD,)

    def configured(self, options: ExampleOptions) -> ExamplePollster:
        """Return a pollster with the options from the configuration."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Answer once, at start. What ``here`` offers may be looked at; a reason is shown to the operator."""
        if not self.options.wanted:
            return Disabled("an example; [pollsters.example] wanted = true switches it on")
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return what is true now. Whatever takes time is awaited; whatever goes wrong may be raised."""
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
