"""Metadata of a sample from a further request, for example the name of its project from Keystone."""

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
"""The variables in a path: the entry, and the metadata fetched before, flat and by name."""

CACHED_RESPONSES = 10_000
"""Maximum number of responses that one pollster caches."""


class Enrichment(BaseModel):
    """A request per sample to an OpenStack service, and which values of the response become metadata.

    ``path`` is a path, or an operation on :data:`NAMES` that returns one; it is resolved against the service's URL like
    a link on a page. The value at ``value`` becomes the metadata ``name``, those at ``metadata`` further metadata.
    Responses are cached for ``cache_seconds``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=255)
    service: str = Field(min_length=1)
    path: str = Field(min_length=1)
    value: str
    metadata: dict[str, str] = {}
    headers: dict[str, str] = {}
    cache_seconds: float = Field(default=3600.0, ge=0)

    @field_validator("path")
    @classmethod
    def _validate_path(cls, text: str) -> str:
        _formula(text)
        return text

    @field_validator("value")
    @classmethod
    def _validate_value(cls, text: str) -> str:
        expression(text)
        return text

    @field_validator("metadata")
    @classmethod
    def _validate_metadata(cls, texts: dict[str, str]) -> dict[str, str]:
        for text in texts.values():
            expression(text)
        return texts

    def url(self, root: str, names: Mapping[str, Any]) -> str:
        """Return the URL to request for a sample, where ``root`` is the service's URL; raise ``NoValue``."""
        operation = _formula(self.path)
        path = self.path if operation is None else operation.value(names)
        url = urljoin(root, str(path))
        if urlsplit(url)[:2] != urlsplit(root)[:2]:
            raise NoValue(f"{path!r:.80} leads to another host than {root}")
        return url


def _formula(path: str) -> Formula | None:
    """Return ``path`` parsed as an operation, ``None`` if it is a literal path."""
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
    """Fetches the metadata that ``enrichments`` define, within one poll; no URL is requested twice.

    A value that cannot be fetched is missing; :attr:`failures` maps the enrichment's name to the reason. Samples that
    contain one of the mappings in ``skip`` are not enriched.
    """

    def __init__(
        self, cycle: ICycle, name: str, enrichments: Sequence[Enrichment], skip: Sequence[Mapping[str, Any]]
    ) -> None:
        self._cycle = cycle
        self._enrichments = enrichments
        self._skip = skip
        make = partial(_response_cache, cycle.clock)
        self._cache: ResponseCache = make() if cycle.trial else cycle.daemon_cache(("rest", name, "responses"), make)
        self._fetched: dict[str, Any] = {}
        self.failures: dict[str, str] = {}

    async def metadata(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of ``sample``: an entry with ``id``, ``project_id``, ``user_id``, ``value``, ``metadata``."""
        found: dict[str, Any] = {}
        by_name: dict[str, Any] = {}
        if any(_contains(sample, part) for part in self._skip):
            return found
        for each in self._enrichments:
            names = {"sample": sample, "extra_metadata_captured": found, "extra_metadata_by_name": by_name}
            try:
                document = await self._document(each, names)
                value = expression(each.value).value(document)
                more = {key: expression(text).value(document) for key, text in each.metadata.items()}
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
        if url not in self._fetched:
            cached = self._cache.get(url)
            document = await self._fetch(openstack, enrichment, url) if cached is None else cached.document
            if cached is None and not isinstance(document, Unavailable):
                self._cache[url] = CachedResponse(document, enrichment.cache_seconds)
            self._fetched[url] = document
        if isinstance(self._fetched[url], Unavailable):
            raise self._fetched[url]
        return self._fetched[url]

    async def _fetch(self, openstack: Any, enrichment: Enrichment, url: str) -> Any:
        """Return the document at ``url``, or the :class:`Unavailable` that is raised for every sample of this poll."""
        try:
            response = await openstack.request(enrichment.service, "", headers=enrichment.headers, base=url)
            document = response.json()
        except Unavailable as error:
            return error
        if isinstance(document, Mapping) and len(document) == 1:
            [document] = document.values()  # {"project": {...}}
        return document


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    return bool(part == whole)
