"""More metadata of a sample from another question: the name of its project from Keystone, for one."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import Any
from typing import NamedTuple
from urllib.parse import urljoin
from urllib.parse import urlsplit

from cachetools import TLRUCache
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import field_validator
from twisted.internet.interfaces import IReactorTime

from meter.declarative.rest.expressions import Formula
from meter.declarative.rest.expressions import NoValue
from meter.declarative.rest.expressions import expression
from meter.declarative.rest.expressions import formula
from meter.interfaces import ICycle
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack

NAMES = ("sample", "extra_metadata_captured", "extra_metadata_by_name")
"""What a path may be made of: the entry, and what was found before by its name, flat and in full."""

CACHED_RESPONSES = 10_000
"""Responses that one pollster keeps."""


class Enrichment(BaseModel):
    """A question about a sample to one of OpenStack's services, and what of the answer becomes metadata.

    ``path`` is a path, or an operation that makes one of :data:`NAMES`; it is joined to the service's address as a link
    on a page is. ``value`` is the place of what is called ``name``, ``metadata`` those of more. An answer is kept for
    ``keep_seconds``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=255)
    service: str = Field(min_length=1)
    path: str = Field(min_length=1)
    value: str
    metadata: dict[str, str] = {}
    headers: dict[str, str] = {}
    keep_seconds: float = Field(default=3600.0, ge=0)

    @field_validator("path")
    @classmethod
    def _path(cls, text: str) -> str:
        _formula(text)
        return text

    @field_validator("value")
    @classmethod
    def _place(cls, text: str) -> str:
        expression(text)
        return text

    @field_validator("metadata")
    @classmethod
    def _places(cls, texts: dict[str, str]) -> dict[str, str]:
        for text in texts.values():
            expression(text)
        return texts

    def url(self, root: str, names: Mapping[str, Any]) -> str:
        """Return what is asked about a sample, where the service is at ``root``; ``NoValue``."""
        made = _formula(self.path)
        path = self.path if made is None else made.value(names)
        url = urljoin(root, str(path))
        if urlsplit(url)[:2] != urlsplit(root)[:2]:
            raise NoValue(f"{path!r:.80} leads to elsewhere than {root}")
        return url


def _formula(path: str) -> Formula | None:
    """Return the operation that ``path`` is, ``None`` for one that is a path already."""
    return formula(path, NAMES) if any(sign in path for sign in ("'", '"', *NAMES)) else None


class CachedResponse(NamedTuple):
    """The decoded body of a response, and for how many seconds it may be used."""

    document: Any
    seconds: float


ResponseCache = TLRUCache[str, CachedResponse, float]
"""Responses by URL, each with its own time to live."""


def _response_cache(clock: IReactorTime) -> ResponseCache:
    return TLRUCache(CACHED_RESPONSES, lambda _, kept, now: now + kept.seconds, clock.seconds)


class MetadataFetcher:
    """Asks, within one poll, what ``enrichments`` want to know about samples, none of them twice.

    What cannot be had is left out of the metadata; :attr:`failures` has the reason by the name of each. ``unless`` has
    parts of samples that are not asked about.
    """

    def __init__(
        self, cycle: ICycle, name: str, enrichments: Sequence[Enrichment], unless: Sequence[Mapping[str, Any]]
    ) -> None:
        self._cycle = cycle
        self._enrichments = enrichments
        self._unless = unless
        make = partial(_response_cache, cycle.clock)
        self._kept: ResponseCache = make() if cycle.trial else cycle.daemon_cache(("rest", name, "answers"), make)
        self._now: dict[str, Any] = {}
        self.failures: dict[str, str] = {}

    async def metadata(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return more metadata of ``sample``: an entry with ``id``, ``project_id``, ``user_id``, ``value``, ``metadata``."""
        found: dict[str, Any] = {}
        by_name: dict[str, Any] = {}
        if any(_is_part(part, sample) for part in self._unless):
            return found
        for each in self._enrichments:
            names = {"sample": sample, "extra_metadata_captured": found, "extra_metadata_by_name": by_name}
            try:
                document = await self._document(each, names)
                value = expression(each.value).value(document)
                more = {key: expression(place).value(document) for key, place in each.metadata.items()}
            except (NoValue, Unavailable) as error:
                self.failures.setdefault(each.name, str(error))
                continue
            found[each.name] = value
            found |= {key: one for key, one in more.items() if one is not None or key not in found}
            by_name[each.name] = {"value": value, "metadata": more}
        return found

    async def _document(self, enrichment: Enrichment, names: Mapping[str, Any]) -> Any:
        openstack = self._cycle.provider(IOpenStack)
        url = enrichment.url(await openstack.url(enrichment.service), names)
        if url not in self._now:
            kept = self._kept.get(url)
            document = await self._asked(openstack, enrichment, url) if kept is None else kept.document
            if kept is None and not isinstance(document, Unavailable):
                self._kept[url] = CachedResponse(document, enrichment.keep_seconds)
            self._now[url] = document
        if isinstance(self._now[url], Unavailable):
            raise self._now[url]
        return self._now[url]

    async def _asked(self, openstack: Any, enrichment: Enrichment, url: str) -> Any:
        try:
            answer = await openstack.ask(enrichment.service, "", headers=enrichment.headers, base=url)
            document = answer.json()
        except Unavailable as error:
            return error
        if isinstance(document, Mapping) and len(document) == 1:
            [document] = document.values()  # {"project": {...}}
        return document


def _is_part(part: Any, whole: Any) -> bool:
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _is_part(value, whole[key]) for key, value in part.items())
    return bool(part == whole)
