"""The pollster of one description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin
from urllib.parse import urlsplit

from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import ISurroundings
from meter.interfaces import Unavailable
from meter.openstack import Answer
from meter.openstack import BadAnswer
from meter.openstack import IOpenStack
from meter.openstack import IWeb
from meter.openstack import Request
from meter.openstack.cloud import Circling
from meter.pollsters.openstack.pollster import Omitted
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.table import BadItem
from meter.rest.definition import RestDefinition
from meter.rest.expressions import NoValue
from meter.rest.expressions import expression
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample

MOST_PAGES = 1000


@implementer(ICentralPollster)
class RestPollster:
    """Asks the API that ``definition`` describes, and makes a sample of each entry of its answers."""

    options = None

    def __init__(self, definition: RestDefinition) -> None:
        self._definition = definition
        self._metadata = {key: expression(text) for key, text in definition.metadata.items()}

    @property
    def name(self) -> str:
        """The name of the definition."""
        return self._definition.pollster_name

    @property
    def meters(self) -> tuple[MeterDefinition, ...]:
        """The one meter."""
        return (self._definition.definition,)

    def configured(self, options: None) -> RestPollster:
        """Return the pollster: its options are its definition."""
        return self

    async def enabled(self, here: ISurroundings) -> Enabled | Disabled:
        """Work where there is HTTP and, for one of OpenStack's services, where the catalogue has it."""
        if self._definition.service:
            return await enabled_with(here, self._definition.service)
        try:
            here.provider(IWeb)
        except LookupError:
            return Disabled("this daemon asks nothing over HTTP")
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all entries of all pages; an entry that makes none costs itself only."""
        omitted = Omitted(cycle, self.name)
        samples = []
        async for answer in self._answers(cycle):
            for entry in self._entries(answer):
                try:
                    sample = self._sample(entry, answer)
                except (BadItem, BadSample) as error:
                    omitted.add(str(entry)[:60], error)
                else:
                    samples += [sample] if sample else []
        omitted.tell()
        return samples

    async def _answers(self, cycle: ICycle) -> AsyncIterator[Answer]:
        definition, circling = self._definition, Circling()
        following = definition.place("next")
        url = definition.url
        for _ in range(MOST_PAGES):
            answer = await self._ask(cycle, url)
            yield answer
            link = following.value(answer.json()) if following else None
            if not isinstance(link, str) or not link:
                return
            url = urljoin(answer.request.url, link)
            if urlsplit(url)[:2] != urlsplit(answer.request.url)[:2]:
                raise BadAnswer(f"{answer.request}: the next page is elsewhere: {url}")
            if circling.seen(url):
                raise BadAnswer(f"{answer.request}: the pages go in circles")
        raise BadAnswer(f"{answer.request}: there are more than {MOST_PAGES} pages")

    async def _ask(self, cycle: ICycle, url: str) -> Answer:
        definition = self._definition
        try:
            headers = {"Accept": "application/json", **definition.all_headers()}
        except OSError as error:
            raise Unavailable(f"{self.name}: its secret cannot be read: {error}") from None
        if definition.service:
            path = "" if url else definition.path
            answer: Answer = await cycle.provider(IOpenStack).ask(definition.service, path, headers=headers, base=url)
            return answer
        asked: Answer = await cycle.provider(IWeb).exchange(
            self.name, Request(method=definition.method, url=url, headers=headers)
        )
        return asked.checked()

    def _entries(self, answer: Answer) -> list[Any]:
        document = answer.json()
        place = self._definition.place("entries")
        found = place.value(document) if place else document
        if not place and isinstance(found, Mapping) and len(found) == 1:
            [only] = found.values()  # as Ceilometer: {"clusters": [...]}
            found = only if isinstance(only, list) else found
        if isinstance(found, Mapping):
            return [found]
        if not isinstance(found, list):
            raise BadAnswer(
                f"{answer.request}: there should be a list at {self._definition.entries or 'the top'!r},"
                f" not {type(found).__name__}"
            )
        return found

    def _sample(self, entry: Any, answer: Answer) -> Sample | None:
        """Return the sample of ``entry``, ``None`` where its value is one to skip."""
        definition = self._definition
        try:
            value = _value(definition, "volume", entry)
            if value in definition.skip:
                return None
            resource = _value(definition, "resource", entry)
            owners = {name: _value(definition, name, entry) for name in ("project", "user")}
            metadata = {key: each.value(entry) for key, each in self._metadata.items()}
        except NoValue as error:
            raise BadItem("no-value", str(error)) from None
        if resource is None or isinstance(resource, dict | list):
            raise BadItem("no-id", f"there is no resource at {definition.resource!r}")
        return Sample(
            name=definition.meter,
            type=definition.type,
            unit=definition.unit,
            volume=_number(definition, value),
            resource_id=str(resource),
            project_id=None if owners["project"] is None else str(owners["project"]),
            user_id=None if owners["user"] is None else str(owners["user"]),
            timestamp=answer.received_at,
            resource_metadata=metadata,
        )


def _value(definition: RestDefinition, field: str, entry: Any) -> Any:
    place = definition.place(field)
    return place.value(entry) if place else None


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
