"""A request that has been read, and what is there to answer it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.api.auth.visibility import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.errors import Fault
from meter.api.errors import invalid_input
from meter.api.ingest import SampleIngest
from meter.api.rendering.flattening import Flattening
from meter.api.request.simple_query import SAMPLE_FIELDS
from meter.api.request.simple_query import Queryable
from meter.api.request.simple_query import SimpleQuery
from meter.api.request.simple_query import simple_query
from meter.api.request.times import time_asked
from meter.message import BadMessage
from meter.query import IdField
from meter.query import SampleFilter


@dataclass(frozen=True, slots=True)
class Limits:
    """How much there may be.

    Of one answer: ``default`` entries when the question names no limit, ``largest`` the largest it may name; ``windows``
    of statistics, those of all groups together. Of all clients together: ``requests`` that are being answered and ``live`` streams that are followed.
    """

    default: int = 100
    largest: int = 10_000
    windows: int = 200_000
    requests: int = 100
    live: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """A request that has been read: names from the path, arguments by parameter, and what is there to answer it.

    ``body`` is decoded JSON, ``UNSET`` where there is none. ``flat`` is for the metadata of the answer. ``media_type`` is the one to answer in, of those that the operation offers. ``now`` is in
    seconds since 1970; ``base_url`` has no slash at its end, ``url`` is the whole one that was asked.
    """

    path: Mapping[str, str]
    arguments: Mapping[str, Any]
    body: Any
    media_type: str
    requester: Requester
    store: VisibleStore
    flat: Flattening
    acceptance: SampleIngest | None
    clock: IReactorTime
    base_url: str
    url: str
    limits: Limits
    operations: Callable[[], Sequence[Any]]

    @property
    def now(self) -> float:
        """The present time."""
        return self.clock.seconds()

    @property
    def limit(self) -> int:
        """How many entries to answer with; :class:`Fault` when more were asked for than there may be."""
        return self.limit_of(self.arguments["limit"])

    def limit_of(self, asked: int | None) -> int:
        """Return how many entries to answer with where ``asked`` were asked for."""
        if asked is None:
            return self.limits.default
        if asked <= 0:
            raise Fault(400, "Limit must be positive")
        if asked > self.limits.largest:
            raise invalid_input("limit", asked, f"it may be at most {self.limits.largest}; ask for shorter ranges.")
        return int(asked)

    def meter_query(self) -> SimpleQuery:
        """Return the question that is asked of the meter in the path."""
        return self.simple_query(SAMPLE_FIELDS, {"meter": self.path["meter"]})

    def simple_query(self, queryable: Queryable, fixed: Mapping[IdField, str] | None = None) -> SimpleQuery:
        """Return what the argument ``q`` asks, as of the time that was asked for."""
        asked = simple_query(self.arguments["q"], queryable, fixed)
        return replace(asked, filter=self.with_as_of(asked.filter))

    def with_as_of(self, filter: SampleFilter) -> SampleFilter:
        """Return ``filter`` as of the time that was asked for."""
        return replace(filter, as_of=_time("as_of", self.arguments.get("as_of")))


def _time(name: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else time_asked(text, name)
    except BadMessage as error:
        raise invalid_input(name, text, "invalid timestamp format") from error
