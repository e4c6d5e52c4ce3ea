"""GPUs that the flavors of instances ask for, from the extra specs in Nova's versioned notifications; unversioned ones have none."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Self

from msgspec.structs import replace
from zope.interface import implementer

from meter.declarative.notifications import DefinedListener
from meter.flavor_gpus import GPUS
from meter.flavor_gpus import VGPUS
from meter.flavor_gpus import FlavorGpuOptions
from meter.flavor_gpus import flavor_gpus
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IListener
from meter.interfaces import IPluginContext
from meter.notification import Notification
from meter.sample import Sample


@implementer(IListener)
class FlavorGpuListener:
    """Makes samples of instances whose flavor asks for GPUs, with the definitions of ``defined``."""

    def __init__(self, defined: DefinedListener, options: FlavorGpuOptions | None = None) -> None:
        self._defined = defined
        self.options = options or FlavorGpuOptions()
        self.name = defined.name
        self.meters = defined.meters
        self.topics = defined.topics
        self.event_types = defined.event_types

    def configured(self, options: FlavorGpuOptions) -> Self:
        """Return a listener with ``options``."""
        return type(self)(self._defined, options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return :class:`Enabled`: without such notifications it does nothing."""
        return Enabled()

    def samples(self, notification: Notification) -> Iterable[Sample]:
        """Return a sample of each kind that the flavor asks for; after a resize a 0 of each kind that it does not ask for."""
        payload = notification.payload
        flavor = payload.get("flavor") if isinstance(payload, Mapping) else None
        specs = flavor.get("extra_specs") if isinstance(flavor, Mapping) else None
        if not isinstance(specs, Mapping):
            return ()
        asked = flavor_gpus(specs, self.options)
        resized = "resize" in notification.event_type
        counts = {
            name: count for name, count in ((GPUS.name, asked.gpus), (VGPUS.name, asked.vgpus)) if count or resized
        }
        if not counts:
            return ()
        fields = {name.replace(".", "_"): count for name, count in counts.items()}
        made = self._defined.samples(replace(notification, payload={**payload, **fields}))
        return (each for each in made if each.name in counts)
