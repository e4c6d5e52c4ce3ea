"""The source ``gnocchi``: metrics of all resources, over Gnocchi's API, resource by resource in the order of their ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from meter.commands.importing.gnocchi_points import MAX_GRANULARITY_SECONDS
from meter.commands.importing.gnocchi_points import SOURCE
from meter.commands.importing.gnocchi_points import GnocchiMetric
from meter.commands.importing.gnocchi_points import NoAggregation
from meter.commands.importing.gnocchi_points import ResourceRevision
from meter.commands.importing.gnocchi_points import aggregation_for
from meter.commands.importing.gnocchi_points import samples_of
from meter.commands.importing.import_source import PAGE_SAMPLES
from meter.commands.importing.import_source import ImportSelection
from meter.commands.importing.import_source import ImportSourceError
from meter.commands.importing.import_source import NotImported
from meter.commands.importing.import_source import SourcePage
from meter.commands.importing.import_source import SourceSample
from meter.commands.importing.meter_types import MeterTypes
from meter.commands.importing.meter_types import UnknownMeter
from meter.commands.importing.service_client import ServiceClient
from meter.counts import counted
from meter.http.client import BadResponse
from meter.http.client import ErrorResponse
from meter.message import parse_timestamp
from meter.sample import RESERVED_METADATA
from meter.sample import utc_text

OWN_ATTRIBUTES = frozenset(
    {
        "id",
        "original_resource_id",
        "type",
        "creator",
        "created_by_user_id",
        "created_by_project_id",
        "started_at",
        "ended_at",
        "revision_start",
        "revision_end",
        "user_id",
        "project_id",
        "metrics",
    }
)
"""Attributes of a resource that are Gnocchi's own, or have a field of their own in a sample."""

NOT_METADATA = OWN_ATTRIBUTES | {RESERVED_METADATA}

GRANULARITY = re.compile(r"(?:(\d{1,9}) days?, )?(\d{1,9}):(\d\d):(\d\d)(?:\.(\d{1,6}))?")
SERVER_ERROR = 500

PAGE_RESOURCES = 500
"""Resources that are asked for at a time; Gnocchi returns a thousand at most, if it is not configured otherwise."""

MAX_CREATORS = 10
"""Creators of resources that an error names, those of most first."""


class GnocchiMetrics:
    """The points of ``selection``, of all resources that ``client`` may read, and that one of ``creators`` has made.

    Every user of Gnocchi may make resources, with the name and in the project of others. Without ``creators`` all that is there must have
    been made by one. ``granularity_seconds`` is that of the points, ``None`` for the coarsest of each metric, which Gnocchi keeps for the longest time.
    """

    unit = "resources"

    def __init__(
        self,
        client: ServiceClient,
        selection: ImportSelection,
        types: MeterTypes,
        *,
        url: str,
        creators: Sequence[str] = (),
        granularity_seconds: float | None = None,
        page_samples: int = PAGE_SAMPLES,
        page_resources: int = PAGE_RESOURCES,
    ) -> None:
        self._client = client
        self._selection = selection
        self._types = types
        self._creators = frozenset(creators)
        self._granularity_seconds = granularity_seconds
        self._page_samples = page_samples
        self._page_resources = page_resources
        self.identity: Mapping[str, Any] = {
            "source": SOURCE,
            "url": url,
            "granularity": granularity_seconds,
            "creators": sorted(creators),
        }

    async def open(self) -> None:
        """Ask for the archive policies, which every user may read, and who has made the resources."""
        try:
            await self._client.get("archive_policy")
        except BadResponse as error:
            if isinstance(error, ErrorResponse) and error.status >= SERVER_ERROR:
                raise
            raise ImportSourceError(f"this is not the API of Gnocchi: {error}") from error
        made: Counter[str] = Counter()
        async for resource in self._resources(None):
            made[creator_of(resource)] += 1
        known = (
            ", ".join(f"{name} ({counted(number, 'resource', ',')})" for name, number in made.most_common(MAX_CREATORS))
            or "none"
        )
        if missing := sorted(self._creators - made.keys()):
            raise ImportSourceError(
                f"--creator: {', '.join(missing)} has made no resource in Gnocchi; creators are: {known}"
            )
        if not self._creators and len(made) > 1:
            raise ImportSourceError(
                "several users have made resources in Gnocchi, which lets every user do so in the name of any project: say with"
                f" --creator which is Ceilometer's of {known}"
            )
        self._creators = self._creators or frozenset(made)

    async def close(self) -> None:
        """Do nothing: each request has a connection of its own."""

    async def total(self, mark: Any) -> int:
        """Return the number of resources after ``mark``."""
        number = 0
        async for resource in self._resources(mark):
            number += creator_of(resource) in self._creators
        return number

    async def pages(self, mark: Any) -> AsyncIterator[SourcePage]:
        """Yield the samples of the resources with greater ids than ``mark``."""
        async for resource in self._resources(mark):
            if creator_of(resource) not in self._creators:
                continue
            samples: list[SourceSample] = []
            not_imported: list[NotImported] = []
            revisions: Sequence[ResourceRevision] = ()
            for name, metric_id in sorted(resource["metrics"].items()):
                if not self._selection.has_meter(name):
                    continue
                record = f"metric {metric_id}"
                try:
                    revisions = revisions or await self._revisions(resource)
                    more, refused = await self._points(record, name, metric_id, resource, revisions)
                except (UnknownMeter, NoAggregation, LookupError, TypeError, ValueError, AttributeError) as error:
                    not_imported.append(_whole_metric(record, name, resource, str(error)))
                    continue
                except BadResponse as error:
                    if isinstance(error, ErrorResponse) and error.status >= SERVER_ERROR:
                        raise
                    not_imported.append(_whole_metric(record, name, resource, str(error)))
                    continue
                samples += more
                not_imported += refused
                while len(samples) > self._page_samples:
                    yield SourcePage(samples[: self._page_samples], not_imported, None, 0)
                    samples, not_imported = samples[self._page_samples :], []
            yield SourcePage(samples, not_imported, resource["id"], 1)

    async def _resources(self, mark: Any) -> AsyncIterator[Mapping[str, Any]]:
        while True:
            query = [("sort", "id:asc"), ("limit", str(self._page_resources))]
            query += [("marker", mark)] if mark else []
            page = await self._client.get("resource", "generic", query=query)
            if not isinstance(page, list) or not all(map(_is_resource, page)):
                raise ImportSourceError("Gnocchi's list of resources is not a list of objects with ids and metrics")
            for resource in page:
                yield resource
            if not page or page[-1]["id"] == mark:  # that would go on for ever
                return
            mark = page[-1]["id"]

    async def _revisions(self, resource: Mapping[str, Any]) -> Sequence[ResourceRevision]:
        history = await self._client.get(
            "resource", resource["type"], resource["id"], "history", query=[("sort", "revision_start:asc")]
        )
        revisions = [
            ResourceRevision(
                parse_timestamp(each["revision_start"], "revision_start"),
                each["project_id"],
                each["user_id"],
                metadata_of(each),
            )
            for each in history
        ]
        if not revisions:
            raise LookupError("Gnocchi has no revision of its resource")
        return revisions

    async def _points(
        self,
        record: str,
        name: str,
        metric_id: str,
        resource: Mapping[str, Any],
        revisions: Sequence[ResourceRevision],
    ) -> tuple[list[SourceSample], list[NotImported]]:
        """Return the samples of one metric, and its points that cannot be imported."""
        kind = self._types.of(name)
        described = await self._client.get("metric", metric_id)
        if creator_of(described) not in self._creators:
            raise LookupError(
                f"{creator_of(described) or 'somebody'} has made this metric, not the creator of its resource"
            )
        policy = described["archive_policy"]
        aggregation = aggregation_for(kind, policy["aggregation_methods"])
        kept = [granularity_of(each["granularity"]) for each in policy["definition"]]
        granularity = self._granularity_seconds or max(kept)
        if granularity not in kept:
            has = ", ".join(f"{each:g}" for each in sorted(kept))
            raise NoAggregation(f"Gnocchi keeps points of {has} s of it, not of {granularity:g} s")
        metric = GnocchiMetric(
            record=record,
            name=name,
            type=kind,
            unit=described.get("unit") or "",
            resource_id=resource.get("original_resource_id") or resource["id"],
            aggregation=aggregation,
            revisions=revisions,
        )
        query = [("aggregation", aggregation), ("granularity", repr(granularity))]
        query.append(("stop", utc_text(self._selection.until)))
        if self._selection.since is not None:
            query.append(("start", utc_text(self._selection.since - timedelta(seconds=granularity))))
        points = await self._client.get("metric", metric_id, "measures", query=query)
        return samples_of(metric, points, granularity, self._selection)


def creator_of(described: Mapping[str, Any]) -> str:
    """Return the user who has made a resource or a metric, with the project: ``USER:PROJECT``; ``""`` if Gnocchi does not know."""
    return str(described.get("creator") or "")


def metadata_of(revision: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a revision as the metadata from which Ceilometer had made them."""
    metadata = {name: value for name, value in revision.items() if name not in NOT_METADATA and value is not None}
    if revision.get("type") == "instance":
        if "host" in metadata:
            metadata["instance_host"] = metadata.pop("host")
        flavor = {name: metadata[f"flavor_{name}"] for name in ("id", "name") if metadata.get(f"flavor_{name}")}
        if flavor:
            metadata["flavor"] = flavor
        if "name" in flavor:
            metadata["instance_type"] = flavor["name"]
    return metadata


def granularity_of(text: Any) -> float:
    """Return the seconds of a granularity, such as ``0:05:00`` or ``1 day, 0:00:00``; ``LookupError`` if it is none."""
    seconds = _seconds(text)
    if not 0 < seconds <= MAX_GRANULARITY_SECONDS:
        raise LookupError(f"its granularity is {text!r:.40}")
    return float(seconds)


def _seconds(text: Any) -> float:
    if isinstance(text, int | float) and not isinstance(text, bool):
        return text
    match = GRANULARITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise LookupError(f"its granularity is {text!r:.40}")
    days, hours, minutes, seconds, fraction = match.groups()
    whole = int(days or 0) * 86_400 + int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return whole + int((fraction or "0").ljust(6, "0")) / 1e6


def _is_resource(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), str) and isinstance(item.get("metrics"), dict)


def _whole_metric(record: str, name: str, resource: Mapping[str, Any], reason: str) -> NotImported:
    return NotImported(record, name, reason, {"resource_id": resource.get("original_resource_id") or resource["id"]})
