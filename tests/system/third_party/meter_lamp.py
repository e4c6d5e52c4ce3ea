"""A pollster that somebody else ships."""

from dataclasses import dataclass
from dataclasses import replace
from typing import ClassVar

from pydantic import BaseModel
from zope.interface import implementer

from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.sample import MeterDefinition
from meter.sample import Sample


class Options(BaseModel, frozen=True):
    room: str = "cellar"


@implementer(IComputePollster)
@dataclass(frozen=True)
class Lamp:
    name: ClassVar[str] = "lamp"
    meters: ClassVar[tuple] = (MeterDefinition("lamp.power", "gauge", "W"),)
    options: Options = Options()  # noqa: RUF009  # frozen

    def configured(self, options):
        return replace(self, options=options)

    async def enabled(self, context):
        return Enabled()

    async def poll(self, cycle):
        return [
            Sample(
                name="lamp.power",
                type="gauge",
                unit="W",
                volume=40,
                resource_id=f"{self.options.room}/lamp",
                timestamp=cycle.timestamp,
            )
        ]


lamp = Lamp()
