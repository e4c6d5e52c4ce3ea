"""What an evaluation works with: the visible part of the store, turns of the reactor, limits and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

from meter.api.auth.visibility import VisibleStore
from meter.api.prometheus.limits import PromqlLimits
from meter.daemon.shared_slices import OwnedSlices


@dataclass(frozen=True, slots=True, kw_only=True)
class PromqlSource:
    """The source of all series of one requester.

    ``visible_project`` is the only project of the requester, ``None`` for an administrator: the store refuses a query for
    any other project, while a matcher for it selects nothing.
    """

    store: VisibleStore
    slices: OwnedSlices
    visible_project: str | None
    limits: PromqlLimits = field(default_factory=PromqlLimits)

    @property
    def metadata_labels(self) -> Mapping[str, str]:
        """Labels that have a value of the metadata of a sample, each with the key of that value."""
        return self.limits.metadata_labels
