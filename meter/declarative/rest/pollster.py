"""The pollster of one description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin
from urllib.parse import urlsplit

from twisted.logger import Logger
from zope.interface import implementer

from meter.declarative.rest.definition import FIRST
from meter.declarative.rest.definition import RestDefinition
from meter.declarative.rest.enrichment import MetadataFetcher
from meter.declarative.rest.expressions import Expression
from meter.declarative.rest.expressions import NoValue
from meter.declarative.rest.expressions import at
from meter.declarative.rest.expressions import expression
from meter.declarative.rest.responses import document as understood
from meter.http import BadResponse
from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.http import IHttpClient
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.openstack.listing import LoopDetector
from meter.pollsters.openstack.pollster import Omitted
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.table import BadItem
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample

MOST_PAGES = 1000


@implementer(ICentralPollster)
class RestPollster:
    """Asks the API that ``definition`` describes, and makes a sample of each entry of its answers."""

    options = None
    _log = Logger()

    def __init__(self, definition: RestDefinition) -> None:
        self._definition = definition
        self._metadata = {key: expression(text) for key, text in definition.metadata.items()}

    @property
    def name(self) -> str:
        """The name of the definition."""
        return self._definition.pollster_name

    @property
    def meters(self) -> tuple[MeterDefinition, ...]:
        """The one meter, or what all of them are called."""
        return (self._definition.definition,)

    def configured(self, options: None) -> RestPollster:
        """Return the pollster: its options are its definition."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Work where there is HTTP and, for one of OpenStack's services, where the catalogue has it."""
        if self._definition.service:
            return await enabled_with(context, self._definition.service)
        try:
            context.provider(IHttpClient)
        except LookupError:
            return Disabled("this daemon asks nothing over HTTP")
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all entries of all pages; an entry that makes none costs itself only."""
        samples_skipped = Omitted(cycle, self.name)
        enriching = MetadataFetcher(cycle, self.name, self._definition.more, self._definition.more_unless)
        samples = []
        async for answer, document in self._answers(cycle):
            for entry in self._entries(answer, document):
                for sample in self._samples(entry, answer, samples_skipped):
                    samples.append(await self._enriched(sample, entry, enriching))
        samples_skipped.tell()
        self._tell(enriching, {} if cycle.trial else cycle.daemon_cache(("rest", self.name, "told"), dict))
        return samples

    def _tell(self, enriching: MetadataFetcher, told: dict[str, str]) -> None:
        """Log what metadata could not be had, once as long as that stays so."""
        for name, reason in enriching.failures.items():
            if name not in told:
                self._log.warn("{name}: samples are without {what}: {reason}", name=self.name, what=name, reason=reason)
        told.clear()
        told.update(enriching.failures)

    async def _answers(self, cycle: ICycle) -> AsyncIterator[tuple[HttpResponse, Any]]:
        definition, circling = self._definition, LoopDetector()
        following = definition.place("next")
        url = definition.url
        for _ in range(MOST_PAGES):
            answer = await self._ask(cycle, url)
            document = understood(answer, definition.responses)
            yield answer, document
            link = _link(following, document)
            if not isinstance(link, str) or not link:
                return
            url = urljoin(answer.request.url, link)
            if urlsplit(url)[:2] != urlsplit(answer.request.url)[:2]:
                raise BadResponse(f"{answer.request}: the next page is elsewhere: {url}")
            if circling.seen(url):
                raise BadResponse(f"{answer.request}: the pages go in circles")
        raise BadResponse(f"{answer.request}: there are more than {MOST_PAGES} pages")

    async def _ask(self, cycle: ICycle, url: str) -> HttpResponse:
        definition = self._definition
        try:
            accepted = "application/json" if definition.responses == ["json"] else "*/*"
            headers = {"Accept": accepted, **definition.all_headers()}
        except OSError as error:
            raise Unavailable(f"{self.name}: its secret cannot be read: {error}") from None
        if definition.service:
            openstack = cycle.provider(IOpenStack)
            path = "" if url else definition.path.lstrip("/")
            if definition.joined and not url:
                url, path = urljoin(await openstack.url(definition.service), definition.path), ""
            answer: HttpResponse = await openstack.ask(definition.service, path, headers=headers, base=url)
            return answer
        asked: HttpResponse = await cycle.provider(IHttpClient).exchange(
            self.name, HttpRequest(method=definition.method, url=url, headers=headers)
        )
        return asked.checked()

    def _entries(self, answer: HttpResponse, document: Any) -> list[Any]:
        found = self._listed(answer, document)
        if isinstance(found, Mapping):
            return [found]
        if not isinstance(found, list):
            raise BadResponse(
                f"{answer.request}: there should be a list at {self._definition.entries or 'the top'!r},"
                f" not {type(found).__name__}"
            )
        return found

    def _listed(self, answer: HttpResponse, document: Any) -> Any:
        place = self._definition.place("entries")
        if self._definition.entries == FIRST:
            return next(iter(document.values()), []) if isinstance(document, Mapping) else document
        if place:
            try:
                return place.value(document)
            except NoValue as error:
                raise BadResponse(f"{answer.request}: {error}") from None
        if isinstance(document, Mapping) and len(document) == 1:
            [only] = document.values()  # {"clusters": [...]}
            return only if isinstance(only, list) else document
        return document

    def _samples(self, entry: Any, answer: HttpResponse, samples_skipped: Omitted) -> Iterator[Sample]:
        """Yield the sample of ``entry``, or those of its elements; what makes none costs itself only."""
        definition = self._definition
        try:
            base = self._base(entry)
            elements = self._elements(entry)
        except BadItem as error:
            samples_skipped.add(str(entry)[:60], error)
            return
        for element in elements:
            try:
                end, name = self._called(element)
                value = _value(definition, "volume", element)
                if value not in definition.skip and (not end or end not in definition.skip):
                    volume = _number(definition, value)
                    yield Sample(name=name, volume=volume, timestamp=answer.received_at, **base)
            except (BadItem, BadSample) as error:
                samples_skipped.add(str(element)[:60], error)

    def _base(self, entry: Any) -> dict[str, Any]:
        """Return what all samples of ``entry`` have in common."""
        definition = self._definition
        resource = _value(definition, "resource", entry)
        if resource is None or isinstance(resource, dict | list):
            raise BadItem("no-id", f"there is no resource at {definition.resource!r}")
        project, user = (_value(definition, name, entry) for name in ("project", "user"))
        try:
            metadata = {key: each.value(entry) for key, each in self._metadata.items()}
        except NoValue as error:
            raise BadItem("no-value", str(error)) from None
        return {
            "type": definition.type,
            "unit": definition.unit,
            "resource_id": str(resource),
            "project_id": None if project is None else str(project),
            "user_id": None if user is None else str(user),
            "resource_metadata": metadata,
        }

    def _elements(self, entry: Any) -> list[Any]:
        if not self._definition.each:
            return [entry]
        elements = _value(self._definition, "each", entry)
        if not isinstance(elements, list):
            raise BadItem("no-list", f"there is no list at {self._definition.each!r}")
        return elements

    def _called(self, element: Any) -> tuple[str, str]:
        """Return what ends the meter's name for ``element``, and the name."""
        definition = self._definition
        if not definition.named_by:
            return "", definition.meter
        end = at(element, tuple(definition.named_by.split(".")))
        if not isinstance(end, str) or not end:
            raise BadItem("no-name", f"there is no text at {definition.named_by!r} that would end the meter's name")
        return end, definition.called(end)

    async def _enriched(self, sample: Sample, entry: Any, enriching: MetadataFetcher) -> Sample:
        if not self._definition.more:
            return sample
        seen = {
            **(entry if isinstance(entry, Mapping) else {}),
            "id": sample.resource_id,
            "project_id": sample.project_id,
            "user_id": sample.user_id,
            "value": sample.volume,
            "metadata": sample.resource_metadata,
        }
        more = await enriching.metadata(seen)
        return replace(sample, resource_metadata={**more, **sample.resource_metadata})


def _link(place: Expression | None, document: Any) -> Any:
    """Return what leads to the next page; where it cannot be reckoned there is none, as after the last."""
    try:
        return place.value(document) if place else None
    except NoValue:
        return None


def _value(definition: RestDefinition, field: str, entry: Any) -> Any:
    place = definition.place(field)
    try:
        return place.value(entry) if place else None
    except NoValue as error:
        raise BadItem("no-value", str(error)) from None


def _number(definition: RestDefinition, value: Any) -> int | float:
    if definition.words or definition.otherwise is not None:
        known = definition.words.get(str(value), definition.otherwise)
        if known is not None:
            return known
    if value is None:
        raise BadItem("no-volume", f"there is no volume at {definition.volume!r}")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        try:
            value = float(value) if any(sign in value for sign in ".eE") else int(value)
        except ValueError:
            raise BadItem("bad-volume", f"{definition.volume} should be a number, not {value!r:.40}") from None
    if not isinstance(value, int | float):
        raise BadItem("bad-volume", f"{definition.volume} should be a number, not {value!r:.40}")
    return value
