"""The context of a request: its parsed content, and the collaborators that a handler needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.api.auth.browser_session import BrowserSession
from meter.api.auth.requester import Requester
from meter.api.auth.sign_in import SignIn
from meter.api.auth.visibility import VisibleStore
from meter.api.bus_services import BusServices
from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.ingest import SampleIngest
from meter.api.limits import RequestLimits
from meter.api.rating_services import RatingServices
from meter.api.rendering.flattening import MetadataFlattener
from meter.api.rendering.sample_pages import SampleEncoders
from meter.api.request.simple_query import QueryableFields
from meter.api.request.simple_query import SimpleQuery
from meter.api.request.simple_query import parse_simple_query
from meter.api.request.times import parse_time_argument
from meter.daemon.shared_slices import OwnedSlices
from meter.query import IdField
from meter.rating.book.watched_directory import WatchedPriceDirectory
from meter.signing_keys import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """A parsed request, and the collaborators that its handler needs.

    ``path`` has the variables of the path, ``arguments`` an argument per parameter of the operation. ``body`` is decoded
    JSON, ``UNSET`` if it is empty. ``keys`` are the signing keys, ``None`` if this server has none; so is ``rating``. ``media_type`` is the
    negotiated type of the response. ``flatten`` encodes the metadata in the response, ``encoders`` pages of samples. Long work is done in ``slices``.
    ``ingest`` is ``None`` if samples are not accepted. ``base_url`` has no slash at its end, and is empty if links are
    relative; ``url`` is that of the request, with the parameters of its body in the query string unless it is a form, which
    can have passwords. ``session`` is that of the browser, ``sign_in`` begins and ends one. ``prices`` is ``None`` if rating is
    not configured, ``bus`` if this server does not know the message bus. ``started_at`` is when the API was
    started, in seconds since 1970. ``accepts_gzip``: the response may be compressed so.
    """

    path: Mapping[str, str]
    arguments: Mapping[str, Any]
    body: Any
    media_type: str
    requester: Requester
    store: VisibleStore
    flatten: MetadataFlattener
    encoders: SampleEncoders
    slices: OwnedSlices
    ingest: SampleIngest | None
    keys: Keyring | None
    rating: RatingServices | None
    clock: IReactorTime
    base_url: str
    url: str
    limits: RequestLimits
    session: BrowserSession
    sign_in: SignIn
    prices: WatchedPriceDirectory | None = None
    bus: BusServices | None = None
    started_at: float = 0.0
    accepts_gzip: bool = False

    @property
    def now(self) -> float:
        """The present time, in seconds since 1970."""
        return self.clock.seconds()

    @property
    def utc_now(self) -> datetime:
        """The present time."""
        return datetime.fromtimestamp(self.now, UTC)

    @property
    def limit(self) -> int:
        """The maximum number of entries in the response; :class:`ApiError` 400 for an invalid argument ``limit``."""
        return self.check_limit(self.arguments["limit"])

    def check_limit(self, limit: int | None) -> int:
        """Return ``limit``, the default if it is ``None``; :class:`ApiError` 400 if it is out of range."""
        if limit is None:
            return self.limits.default_limit
        if limit <= 0:
            raise ApiError(400, "Limit must be positive")
        if limit > self.limits.max_limit:
            raise invalid_input("limit", limit, f"the maximum is {self.limits.max_limit}; request further pages.")
        return int(limit)

    @property
    def as_of(self) -> datetime | None:
        """The argument ``as_of``; :class:`ApiError` 400 if it is not a time."""
        text = self.arguments.get("as_of")
        return None if text is None else parse_time_argument("as_of", text)

    def simple_query(self, queryable: QueryableFields) -> SimpleQuery:
        """Return the parsed arguments ``q`` and ``as_of``, restricted to the meter in the path if it has one."""
        meter: Mapping[IdField, str] | None = {"meter": self.path["meter"]} if "meter" in self.path else None
        return parse_simple_query(self.arguments["q"], queryable, fixed=meter, as_of=self.as_of)
