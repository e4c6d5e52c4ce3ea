"""The options of the pollster of energy."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from meter.pollsters.redfish.options import OwnBmcOptions


class EnergyOptions(BaseModel):
    """The options of the pollster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    idle: Literal["shared", "host"] = Field(
        default="shared",
        description="Who takes the energy of idle processors: the domains by their virtual processors, or the host.",
    )
    carbon_g_per_kwh: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Carbon dioxide equivalent of a kWh (g), for the meter carbon; 0 for no such meter.",
    )
    pue: float = Field(
        default=1.0,
        ge=1,
        allow_inf_nan=False,
        description="Power usage effectiveness of the site, by which carbon is multiplied: all of its energy to that of its computers.",
    )
    bmc: OwnBmcOptions | None = Field(
        default=None,
        description="This host's BMC, whose energy of the whole host is shared too: energy.wall. Without it there is no such meter.",
    )
