"""Traffic of Neutron's metering agent: makes samples from only one of the granularities that report the same bytes.

With ``granular_traffic_data = true`` the agent reports the bytes of an interval five times, summed by label, router,
project, label and router, label and project. Samples may be made from only one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from datetime import timedelta
from typing import Literal
from typing import Self

from cachetools import FIFOCache
from msgspec.structs import replace
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from zope.interface import implementer

from meter.declarative.notifications import DefinedListener
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IListener
from meter.interfaces import IPluginContext
from meter.notification import Notification
from meter.sample import Sample

Granularity = Literal["label_project", "label_router", "project", "router", "label"]

GRANULARITIES: tuple[Granularity, ...] = ("label_project", "label_router", "project", "router", "label")
"""From the finest, which has a project, to the coarsest, which may have none."""

PREFIX = "l3.meter."

BURST = timedelta(seconds=5)
"""Notifications of one report follow each other within this time; the next report follows after ``report_interval``."""

REMEMBERED = 10_000
"""Agents, and notifications, that are remembered."""

ALL_PROJECTS = "all"
"""The project that the agent writes for a shared label."""


class BandwidthOptions(BaseModel):
    """Which granularity is billed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    granularity: Granularity = Field(
        default="label_project",
        description="Which granularity of Neutron's granular_traffic_data is billed; all five report the same bytes.",
    )
    fallback: bool = Field(
        default=True,
        description="While that granularity has not arrived, bill the finest one that has. Each collector decides by what it received, so that of several ones two may bill the same bytes in the first reports after a start; set it to false where Neutron sends the granularity.",
    )


@implementer(IListener)
class BandwidthListener:
    """Makes samples of ``bandwidth`` from the notifications of one granularity, with the definitions of ``defined``."""

    def __init__(self, defined: DefinedListener, options: BandwidthOptions | None = None) -> None:
        self._defined = defined
        self.options = options or BandwidthOptions()
        self.name = defined.name
        self.meters = defined.meters
        self.topics = defined.topics
        self.event_types = defined.event_types
        self._choice = _Choice(self.options)

    def configured(self, options: BandwidthOptions) -> Self:
        """Return a listener that bills the granularity of ``options``."""
        return type(self)(self._defined, options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return :class:`Enabled`: without such notifications it does nothing."""
        return Enabled()

    def samples(self, notification: Notification) -> Iterator[Sample]:
        """Yield the sample of a notification of the granularity that is billed."""
        granularity = notification.event_type.removeprefix(PREFIX)
        if granularity in GRANULARITIES and not self._choice.bills(granularity, notification):
            return
        for sample in self._defined.samples(notification):
            shared = sample.project_id == ALL_PROJECTS and granularity in GRANULARITIES
            yield replace(sample, project_id=None) if shared else sample


class _Choice:
    """Remembers the granularities received: within a report one is billed, in the next report the finest one seen."""

    def __init__(self, options: BandwidthOptions) -> None:
        finest = [each for each in GRANULARITIES if each != options.granularity]
        self._ranks: dict[str, int] = {each: rank for rank, each in enumerate((options.granularity, *finest))}
        self._fallback = options.fallback
        self._known: int | None = None
        self._billed: FIFOCache[str, tuple[int, datetime]] = FIFOCache(REMEMBERED)
        """By agent: the rank that is billed in its current report, and when it last sent a notification."""
        self._decided: FIFOCache[str, bool] = FIFOCache(REMEMBERED)
        """By notification: a redelivered one gets the same decision."""

    def bills(self, granularity: str, notification: Notification) -> bool:
        """Return whether samples are made from this notification."""
        rank = self._ranks[granularity]
        if not self._fallback:
            return rank == 0
        decided = self._decided.get(notification.message_id)
        if decided is None:
            decided = self._decided[notification.message_id] = self._decide(rank, notification)
        return decided

    def _decide(self, rank: int, notification: Notification) -> bool:
        agent, sent = notification.publisher_id, notification.timestamp
        before, when = self._billed.get(agent, (None, sent))
        if before is None or abs(sent - when) > BURST:
            before = rank if self._known is None else self._known
        self._known = rank if self._known is None else min(rank, self._known)
        self._billed[agent] = (before, sent)
        return rank == before
