"""The pollster of one definition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin
from urllib.parse import urlsplit

from msgspec.structs import replace
from twisted.logger import Logger
from zope.interface import implementer

from meter.declarative.request_fields import enabled_with_http_client
from meter.declarative.rest.definition import FIRST_VALUE
from meter.declarative.rest.definition import RestDefinition
from meter.declarative.rest.enrichment import MetadataFetcher
from meter.declarative.rest.expressions import Expression
from meter.declarative.rest.expressions import NoValue
from meter.declarative.rest.expressions import at
from meter.declarative.rest.expressions import expression
from meter.declarative.rest.responses import parse
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
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.table import BadItem
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample

MAX_PAGES = 1000


@implementer(ICentralPollster)
class RestPollster:
    """Requests the API of ``definition`` and returns samples of the entries in its responses."""

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
        """The meter; a name that ends in ``*`` stands for all meters with that prefix."""
        return (self._definition.definition,)

    def configured(self, options: None) -> RestPollster:
        """Return the pollster: its options are its definition."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the daemon has an HTTP client and, for an OpenStack service, the catalogue has the service."""
        if self._definition.service:
            return await enabled_with(context, self._definition.service)
        return enabled_with_http_client(context)

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of the entries on all pages; an entry that cannot be metered is skipped."""
        skipped = SkippedItems(cycle, self.name)
        fetcher = MetadataFetcher(
            cycle, self.name, self._definition.extra_metadata, self._definition.extra_metadata_skip
        )
        samples = []
        async for response, document in self._pages(cycle):
            for entry in self._entries(response, document):
                for sample in self._samples(entry, response, skipped):
                    samples.append(await self._enriched(sample, entry, fetcher))
        skipped.report()
        self._log_failures(fetcher, {} if cycle.trial else cycle.daemon_cache(("rest", self.name, "logged"), dict))
        return samples

    def _log_failures(self, fetcher: MetadataFetcher, logged: dict[str, str]) -> None:
        """Log metadata that could not be fetched, once per uninterrupted failure."""
        for name, reason in fetcher.failures.items():
            if name not in logged:
                self._log.warn(
                    "{name}: samples lack the metadata {what}: {reason}", name=self.name, what=name, reason=reason
                )
        logged.clear()
        logged.update(fetcher.failures)

    async def _pages(self, cycle: ICycle) -> AsyncIterator[tuple[HttpResponse, Any]]:
        definition, loop = self._definition, LoopDetector()
        next_link = definition.parsed("next")
        url = definition.url
        for _ in range(MAX_PAGES):
            response = await self._request(cycle, url)
            document = parse(response, definition.responses)
            yield response, document
            link = _link(next_link, document)
            if not isinstance(link, str) or not link:
                return
            url = urljoin(response.request.url, link)
            if urlsplit(url)[:2] != urlsplit(response.request.url)[:2]:
                raise BadResponse(f"{response.request}: the link to the next page leads to another host: {url}")
            if loop.seen(url):
                raise BadResponse(f"{response.request}: the links to the next page loop")
        raise BadResponse(f"{response.request}: there are more than {MAX_PAGES} pages")

    async def _request(self, cycle: ICycle, url: str) -> HttpResponse:
        definition = self._definition
        try:
            accepted = "application/json" if definition.responses == ["json"] else "*/*"
            headers = {"Accept": accepted, **definition.all_headers()}
        except OSError as error:
            raise Unavailable(f"{self.name}: its secret cannot be read: {error}") from None
        if definition.service:
            openstack = cycle.provider(IOpenStack)
            path = "" if url else definition.path.lstrip("/")
            if definition.urljoin and not url:
                url, path = urljoin(await openstack.url(definition.service), definition.path), ""
            response: HttpResponse = await openstack.request(definition.service, path, headers=headers, base=url)
            return response
        response = await cycle.provider(IHttpClient).send(
            self.name, HttpRequest(method=definition.method, url=url, headers=headers)
        )
        return response.checked()

    def _entries(self, response: HttpResponse, document: Any) -> list[Any]:
        found = self._find_entries(response, document)
        if isinstance(found, Mapping):
            return [found]
        if not isinstance(found, list):
            raise BadResponse(
                f"{response.request}: there should be a list at {self._definition.entries or 'the top'!r},"
                f" not {type(found).__name__}"
            )
        return found

    def _find_entries(self, response: HttpResponse, document: Any) -> Any:
        entries = self._definition.parsed("entries")
        if self._definition.entries == FIRST_VALUE:
            return next(iter(document.values()), []) if isinstance(document, Mapping) else document
        if entries:
            try:
                return entries.value(document)
            except NoValue as error:
                raise BadResponse(f"{response.request}: {error}") from None
        if isinstance(document, Mapping) and len(document) == 1:
            [only] = document.values()  # {"clusters": [...]}
            return only if isinstance(only, list) else document
        return document

    def _samples(self, entry: Any, response: HttpResponse, skipped: SkippedItems) -> Iterator[Sample]:
        """Yield the sample of ``entry``, or one per item of it; an item that cannot be metered is skipped."""
        definition = self._definition
        try:
            common = self._common_fields(entry)
            items = self._items(entry)
        except BadItem as error:
            skipped.add(str(entry)[:60], error, resources=self._resource_ids(entry))
            return
        for item in items:
            try:
                suffix, name = self._meter_name(item)
                value = _value(definition, "volume", item)
                if value not in definition.skip_values and (not suffix or suffix not in definition.skip_values):
                    volume = _number(definition, value)
                    yield Sample(name=name, volume=volume, timestamp=response.received_at, **common)
            except (BadItem, BadSample) as error:
                skipped.add(str(item)[:60], error, resources=(common["resource_id"],))

    def _resource_ids(self, entry: Any) -> tuple[str, ...]:
        """Return the id of the resource of ``entry``, nothing if it has none."""
        try:
            resource = _value(self._definition, "resource", entry)
        except BadItem:
            return ()
        return () if resource is None or isinstance(resource, dict | list) else (str(resource),)

    def _common_fields(self, entry: Any) -> dict[str, Any]:
        """Return the fields that all samples of ``entry`` have in common."""
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

    def _items(self, entry: Any) -> list[Any]:
        if not self._definition.items:
            return [entry]
        items = _value(self._definition, "items", entry)
        if not isinstance(items, list):
            raise BadItem("no-list", f"there is no list at {self._definition.items!r}")
        return items

    def _meter_name(self, item: Any) -> tuple[str, str]:
        """Return the suffix of the meter's name for ``item``, and the name."""
        definition = self._definition
        if not definition.suffix_path:
            return "", definition.meter
        suffix = at(item, tuple(definition.suffix_path.split(".")))
        if not isinstance(suffix, str) or not suffix:
            raise BadItem("no-name", f"there is no text at {definition.suffix_path!r} for the end of the meter's name")
        return suffix, definition.meter_name(suffix)

    async def _enriched(self, sample: Sample, entry: Any, fetcher: MetadataFetcher) -> Sample:
        if not self._definition.extra_metadata:
            return sample
        variables = {
            **(entry if isinstance(entry, Mapping) else {}),
            "id": sample.resource_id,
            "project_id": sample.project_id,
            "user_id": sample.user_id,
            "value": sample.volume,
            "metadata": sample.resource_metadata,
        }
        extra = await fetcher.metadata(variables)
        return replace(sample, resource_metadata={**extra, **sample.resource_metadata})


def _link(next_link: Expression | None, document: Any) -> Any:
    """Return the link to the next page, ``None`` if the expression has no value, as on the last page."""
    try:
        return next_link.value(document) if next_link else None
    except NoValue:
        return None


def _value(definition: RestDefinition, field: str, entry: Any) -> Any:
    parsed = definition.parsed(field)
    try:
        return parsed.value(entry) if parsed else None
    except NoValue as error:
        raise BadItem("no-value", str(error)) from None


def _number(definition: RestDefinition, value: Any) -> int | float:
    if definition.value_mapping or definition.default_value is not None:
        mapped = definition.value_mapping.get(str(value), definition.default_value)
        if mapped is not None:
            return mapped
    if value is None:
        raise BadItem("no-volume", f"there is no volume at {definition.volume!r}")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        try:
            value = float(value) if any(character in value for character in ".eE") else int(value)
        except ValueError:
            raise BadItem("bad-volume", f"{definition.volume} should be a number, not {value!r:.40}") from None
    if not isinstance(value, int | float):
        raise BadItem("bad-volume", f"{definition.volume} should be a number, not {value!r:.40}")
    return value
