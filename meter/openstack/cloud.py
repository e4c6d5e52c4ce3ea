"""The cloud as pollsters see it: questions to its services, with one token, and listings page by page."""

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
from meter.http.exchange import BadResponse
from meter.http.exchange import HttpRequest
from meter.http.exchange import HttpResponse
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

NOTHING: Mapping[str, str] = {}


@implementer(IOpenStack, IDependency)
class Cloud(Service):
    """The cloud behind ``keystone``; ``web`` exchanges requests within budgets.

    ``interface`` and ``region`` choose from the catalogue. Pages are asked for with ``page_size`` entries; a listing
    has ``most_pages`` at most. With a ``clock`` the next page is on its way while one is turned into samples.
    """

    _log = Logger()

    def __init__(
        self,
        web: IHttpClient,
        keystone: Keystone,
        *,
        interface: str = "public",
        region: str = "",
        page_size: int = 500,
        most_pages: int = 2000,
        clock: IReactorTime | None = None,
    ) -> None:
        self.setName("openstack")
        self._web = web
        self._keystone = keystone
        self._interface = interface
        self._region = region
        self._page_size = page_size
        self._most_pages = most_pages
        self._clock = clock
        self._trouble = "Keystone was not asked yet"
        self._first: Deferred[None] | None = None

    def startService(self) -> None:
        """Ask for a token; returns at once."""
        super().startService()
        self._first = Deferred.fromCoroutine(self._try())

    def stopService(self) -> None:
        """End what was begun at the start."""
        super().stopService()
        if self._first is not None:
            self._first.cancel()

    async def _try(self) -> None:
        with suppress(Unavailable):  # told, and tried again with the next question
            await self._token()

    def readiness(self) -> Readiness:
        """Return whether Keystone gave us a token when it was last asked."""
        return Readiness("openstack", not self._trouble, self._trouble or "Keystone gives us tokens")

    async def _token(self) -> Token:
        try:
            token = await self._keystone.token()
        except Unavailable as error:
            if str(error) != self._trouble:
                self._log.warn("openstack: {reason}", reason=str(error))
            self._trouble = str(error)
            raise
        if self._trouble:
            self._log.info("openstack: Keystone gives us a token")
        self._trouble = ""
        return token

    async def url(self, service: str) -> str:
        """Return the URL of ``service`` in the catalogue."""
        return (await self._token()).catalogue.url(service, interface=self._interface, region=self._region)

    async def ask(
        self,
        service: str,
        path: str,
        *,
        query: Mapping[str, str] = NOTHING,
        headers: Mapping[str, str] = NOTHING,
        method: str = "GET",
        base: str = "",
    ) -> HttpResponse:
        """Return an answer of success. A token that is not accepted is renewed, once."""
        for attempt in (1, 2):
            token = await self._token()
            root = base or token.catalogue.url(service, interface=self._interface, region=self._region)
            request = HttpRequest(
                method=method,
                url=f"{root}/{path}".rstrip("/") + (f"?{urlencode(query)}" if query else ""),
                headers={"Accept": "application/json", **headers, "X-Auth-Token": token.id},
            )
            answer = await self._web.exchange(service, request)
            if answer.status == UNAUTHORIZED and attempt == 1:
                self._keystone.reject(token)
                continue
            break
        return answer.checked()

    def seconds_for(self, service: str, requests: int) -> float:
        """Return how long the budget of ``service`` takes for so many requests, if nothing else does."""
        return self._web.seconds_for(service, requests)

    async def pages(self, listing: Listing) -> AsyncIterator[Page]:
        """Iterate over the pages of ``listing``; a listing that goes in circles, or on for ever, is a :class:`BadAnswer`.

        Who asks for a second page wants all: from then on one page is asked for ahead, within the same budget.
        """
        base = versioned(await self.url(listing.service), listing.version)
        query = dict(listing.query)
        if listing.sized:
            query["limit"] = str(self._page_size)

        def asked(query: Mapping[str, str]) -> Deferred[HttpResponse]:
            return Deferred.fromCoroutine(
                self.ask(listing.service, listing.path, query=query, headers=listing.headers, base=base)
            )

        circling = LoopDetector()
        asking = asked(query)
        try:
            for number in range(1, self._most_pages + 1):
                answer = await asking
                document = answer.json()
                page = Page(entries(answer, document, listing.key), answer.received_at)
                following = next_query(document, listing.key)
                if following is None:
                    yield page
                    return
                if circling.seen(following):
                    raise BadResponse(f"{answer.request}: the pages of {listing.path} go in circles")
                if number == 1:
                    yield page
                    asking = asked(following)
                else:
                    asking = asked(following)
                    await self._sent()
                    yield page
            raise BadResponse(f"{answer.request}: {listing.path} has more than {self._most_pages} pages")
        finally:
            asking.addErrback(lambda _: None)  # who wants no more pages does not want to know
            asking.cancel()

    async def _sent(self) -> None:
        """Let the reactor send what was written: it does so at the end of a turn, at whose beginning this goes on."""
        if self._clock is not None:
            await sleep(self._clock, 0)
            await sleep(self._clock, 0)


def entries(answer: HttpResponse, document: Any, key: str) -> Sequence[Item]:
    """Return the entries under ``key``; :class:`BadAnswer` where there is no list of objects."""
    found = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise BadResponse(f"{answer.request}: the answer should have a list of objects under {key!r}")
    return found


def next_query(document: Any, key: str) -> dict[str, str] | None:
    """Return the query of the next page, ``None`` after the last.

    Only the query is taken of the link: a service behind a proxy gives links that lead elsewhere, and the token must
    not follow them.
    """
    links = document.get("links")
    link = document.get("next") or (links.get("next") if isinstance(links, Mapping) else None)
    if link is None:
        rels = document.get(f"{key}_links")
        for each in rels if isinstance(rels, list) else ():
            if isinstance(each, Mapping) and each.get("rel") == "next":
                link = each.get("href")
    return dict(parse_qsl(urlsplit(link).query, keep_blank_values=True)) if isinstance(link, str) else None
