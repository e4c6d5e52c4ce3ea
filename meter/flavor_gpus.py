"""GPUs that a flavor of Nova asks for in its extra specs: what was sold, whatever devices an instance has.

Nova's documentation of flavors has the extra specs: ``pci_passthrough:alias`` with names that the operator has chosen, and resource
classes of Placement, ``resources:VGPU`` or, in a numbered or named group, ``resources1:VGPU`` and ``resources_GPU:VGPU``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from meter.sample import MeterDefinition

GPUS = MeterDefinition("flavor.gpus", "gauge", "gpu")
VGPUS = MeterDefinition("flavor.vgpus", "gauge", "vgpu")

ALIAS = "pci_passthrough:alias"
_RESOURCE = re.compile(r"resources(?:[1-9][0-9]*|_[A-Za-z0-9_-]+)?:([A-Z0-9_]+)")
_COUNT = re.compile(r"\s*[0-9]{1,4}\s*", re.ASCII)


class BadExtraSpec(ValueError):
    """An extra spec that asks for GPUs and that Nova would not accept; the text has its name and value."""


class FlavorGpuOptions(BaseModel):
    """Which names in extra specs stand for GPUs. All are patterns with ``*`` and ``?``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu_aliases: tuple[str, ...] = Field(
        default=("*gpu*",),
        description="Names of PCI aliases in Nova's configuration that stand for GPUs, in any case: patterns with * and ?.",
    )
    vgpu_aliases: tuple[str, ...] = Field(
        default=("*vgpu*",),
        description="Names of PCI aliases that stand for parts of GPUs (virtual functions); these are looked for first.",
    )
    gpu_resource_classes: tuple[str, ...] = Field(
        default=("PGPU",), description="Resource classes of Placement that stand for GPUs: patterns with * and ?."
    )
    vgpu_resource_classes: tuple[str, ...] = Field(
        default=("VGPU",), description="Resource classes that stand for parts of GPUs; these are looked for first."
    )


@dataclass(frozen=True, slots=True)
class FlavorGpus:
    """How many GPUs, and parts of GPUs, a flavor asks for."""

    gpus: int = 0
    vgpus: int = 0


def flavor_gpus(extra_specs: Mapping[str, object], options: FlavorGpuOptions) -> FlavorGpus:
    """Return what ``extra_specs`` ask for; raise :class:`BadExtraSpec`."""
    gpus = vgpus = 0
    for aliases, name, count in _requests(extra_specs):
        virtual, whole = (
            (options.vgpu_aliases, options.gpu_aliases)
            if aliases
            else (options.vgpu_resource_classes, options.gpu_resource_classes)
        )
        if _matches(name, virtual, any_case=aliases):
            vgpus += _number(count, name)
        elif _matches(name, whole, any_case=aliases):
            gpus += _number(count, name)
    return FlavorGpus(gpus, vgpus)


def _requests(extra_specs: Mapping[str, object]) -> Iterator[tuple[bool, str, str]]:
    """Yield each request for devices or resources: whether it is by PCI alias, the name, and how many as text."""
    for key, value in extra_specs.items():
        text = str(value)
        if key == ALIAS:
            for request in text.split(","):
                name, _, count = request.partition(":")
                yield True, name.strip(), count
        elif found := _RESOURCE.fullmatch(key):
            yield False, found[1], text


def _matches(name: str, patterns: tuple[str, ...], *, any_case: bool) -> bool:
    if any_case:
        return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _number(count: str, name: str) -> int:
    if not _COUNT.fullmatch(count):
        raise BadExtraSpec(f"the flavor's extra specs ask for {name:.60} {count!r:.60} times: should be a whole number")
    return int(count)
