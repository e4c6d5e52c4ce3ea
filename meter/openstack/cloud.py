"""The OpenStack client that pollsters use: requests with one token, and listings page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl
from urllib.parse import urlencode
from urllib.parse import urlsplit

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.services import sleep
from meter.http.client import BadResponse
from meter.http.client import HttpRequest
from meter.http.client import HttpResponse
from meter.http.interfaces import IHttpClient
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from meter.openstack.catalogue import versioned
from meter.openstack.interfaces import IOpenStack
from meter.openstack.keystone import UNAUTHORIZED
from meter.openstack.keystone import Keystone
from meter.openstack.keystone import Token
from meter.openstack.listing import Item
from meter.openstack.listing import Listing
from meter.openstack.listing import LoopDetector
from meter.openstack.listing import Page

EMPTY: Mapping[str, str] = {}


@implementer(IOpenStack, IDependency)
class Cloud(Service):
    """The cloud whose catalogue ``keystone`` provides; requests go through ``client``.

    ``interface`` and ``region`` select endpoints. A page has up to ``page_size`` entries, a listing up to ``max_pages``
    pages. With a ``clock``, the request for the next page is sent before a page is processed.
    """

    _log = Logger()

    def __init__(
        self,
        client: IHttpClient,
        keystone: Keystone,
        *,
        interface: str = "public",
        region: str = "",
        page_size: int = 500,
        max_pages: int = 2000,
        clock: IReactorTime | None = None,
    ) -> None:
        self.setName("openstack")
        self._client = client
        self._keystone = keystone
        self._interface = interface
        self._region = region
        self._page_size = page_size
        self._max_pages = max_pages
        self._clock = clock
        self._problem = "no token has been requested from Keystone yet"
        self._first_token: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to fetch a token; return at once."""
        super().startService()
        self._first_token = Deferred.fromCoroutine(self._fetch_first_token())

    def stopService(self) -> None:
        """Cancel the fetching of the first token, if it has not ended."""
        super().stopService()
        if self._first_token is not None:
            self._first_token.cancel()

    async def _fetch_first_token(self) -> None:
        with suppress(Unavailable):  # logged by _token(); the next request tries again
            await self._token()

    def readiness(self) -> Readiness:
        """Return ready if the last attempt to get a token succeeded."""
        return Readiness("openstack", not self._problem, self._problem or "Keystone issues tokens")

    async def _token(self) -> Token:
        try:
            token = await self._keystone.token()
        except Unavailable as error:
            if str(error) != self._problem:
                self._log.warn("openstack: no token from Keystone: {reason}", reason=str(error))
            self._problem = str(error)
            raise
        if self._problem:
            self._log.info("openstack: Keystone has issued a token")
        self._problem = ""
        return token

    async def url(self, service: str) -> str:
        """Return the URL of ``service`` in the catalogue; raise :class:`~meter.openstack.catalogue.NoService`."""
        return (await self._token()).catalogue.url(service, interface=self._interface, region=self._region)

    async def request(
        self,
        service: str,
        path: str,
        *,
        query: Mapping[str, str] = EMPTY,
        headers: Mapping[str, str] = EMPTY,
        method: str = "GET",
        base: str = "",
    ) -> HttpResponse:
        """Return the response, whose status is 2xx. A token that the service rejects is renewed once."""
        for attempt in (1, 2):
            token = await self._token()
            root = base or token.catalogue.url(service, interface=self._interface, region=self._region)
            request = HttpRequest(
                method=method,
                url=f"{root}/{path}".rstrip("/") + (f"?{urlencode(query)}" if query else ""),
                headers={"Accept": "application/json", **headers, "X-Auth-Token": token.id},
            )
            response = await self._client.send(service, request)
            if response.status == UNAUTHORIZED and attempt == 1:
                self._keystone.reject(token)
                continue
            break
        return response.checked()

    def seconds_for(self, service: str, requests: int) -> float:
        """Return how many seconds the rate limit of ``service`` needs for ``requests`` requests."""
        return self._client.seconds_for(service, requests)

    async def pages(self, listing: Listing) -> AsyncIterator[Page]:
        """Iterate over the pages of ``listing``; raise :class:`BadResponse` if they loop or exceed ``max_pages``.

        From the second page on, the next page is prefetched, within the same rate limit.
        """
        base = versioned(await self.url(listing.service), listing.version)
        query = dict(listing.query)
        if listing.accepts_limit:
            query["limit"] = str(self._page_size)

        def fetch(query: Mapping[str, str]) -> Deferred[HttpResponse]:
            return Deferred.fromCoroutine(
                self.request(listing.service, listing.path, query=query, headers=listing.headers, base=base)
            )

        loop = LoopDetector()
        pending = fetch(query)
        try:
            for number in range(1, self._max_pages + 1):
                response = await pending
                document = response.json()
                found = entries(response, document, listing.key)
                following = next_query(document, listing.key)
                truncated = following is None and document.get("truncated") is True
                page = Page(found, response.received_at, truncated)
                if following is None:
                    yield page
                    return
                if loop.seen(following):
                    raise BadResponse(f"{response.request}: the pages of {listing.path} loop")
                if number == 1:
                    yield page
                    pending = fetch(following)
                else:
                    pending = fetch(following)
                    await self._flush_writes()
                    yield page
            raise BadResponse(f"{response.request}: {listing.path} has more than {self._max_pages} pages")
        finally:
            pending.addErrback(lambda _: None)  # the caller wants no more pages
            pending.cancel()

    async def _flush_writes(self) -> None:
        """Wait for the reactor to send what was written, which it does at the end of its current iteration."""
        if self._clock is not None:
            await sleep(self._clock, 0)
            await sleep(self._clock, 0)


def entries(response: HttpResponse, document: Any, key: str) -> Sequence[Item]:
    """Return the entries under ``key``; raise :class:`BadResponse` unless they are a list of objects."""
    found = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise BadResponse(f"{response.request}: the response should have a list of objects under {key!r}")
    return found


def next_query(document: Any, key: str) -> dict[str, str] | None:
    """Return the query of the next page, ``None`` after the last.

    Only the query of the link is used: a service behind a proxy may link to another host, which must not get the token.
    """
    links = document.get("links")
    link = document.get("next") or (links.get("next") if isinstance(links, Mapping) else None)
    if link is None:
        rels = document.get(f"{key}_links")
        for each in rels if isinstance(rels, list) else ():
            if isinstance(each, Mapping) and each.get("rel") == "next":
                link = each.get("href")
    return dict(parse_qsl(urlsplit(link).query, keep_blank_values=True)) if isinstance(link, str) else None
