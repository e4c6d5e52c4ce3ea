"""Ceph's RADOS gateway: objects, bytes, buckets and requests of each project, from its admin ops API.

That API does not accept Keystone tokens. Requests are signed with S3 signature version 2, which every gateway accepts
and which takes a dozen lines.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from zope.interface import implementer

from meter.daemon.services import wall_seconds
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
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.round_robin import RoundRobin
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import gauge
from meter.pollsters.openstack.table import number
from meter.sample import MeterDefinition
from meter.sample import Sample

OBJECTS = gauge("radosgw.objects", "object")
SIZE = gauge("radosgw.objects.size", "B")
CONTAINERS = gauge("radosgw.objects.containers", "container")
CONTAINER_OBJECTS = gauge("radosgw.containers.objects", "object")
CONTAINER_SIZE = gauge("radosgw.containers.objects.size", "B")
REQUESTS = gauge("radosgw.api.request", "request")

SERVICE = "radosgw"
REQUESTS_PER_PROJECT = 2


class RadosgwOptions(BaseModel):
    """Options of the pollster, which is disabled without ``url``."""

    model_config = ConfigDict(frozen=True, strict=True)

    url: str = Field(default="", pattern=r"^(https?://[^?#]+)?$")
    """URL of the admin ops API: ``http://rgw.example.org:7480/admin``."""
    access_key: str = ""
    """Access key of a user with the capabilities ``buckets=read; usage=read``."""
    secret_key_file: str = ""
    """File that contains that user's secret key."""
    user: str = "{project}"
    """Id of a project's user: ``{project}${project}`` if the gateway has a tenant per project."""
    concurrency: int = Field(default=4, gt=0)
    """How many projects are requested at the same time."""


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class RadosgwPollster:
    """Meters the buckets and requests of every project that is a user of the gateway, in a round-robin."""

    options: RadosgwOptions = field(default_factory=RadosgwOptions)
    name: str = SERVICE
    meters: tuple[MeterDefinition, ...] = (OBJECTS, SIZE, CONTAINERS, CONTAINER_OBJECTS, CONTAINER_SIZE, REQUESTS)

    def configured(self, options: RadosgwOptions) -> RadosgwPollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the options name a gateway and there is a Keystone that lists the projects."""
        if not (self.options.url and self.options.access_key and self.options.secret_key_file):
            return Disabled("[pollsters.radosgw] has no url, access_key and secret_key_file")
        return await enabled_with(context, "identity")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all projects; a project that cannot be read has none."""
        secret_key = self._secret_key()
        skipped = SkippedItems(cycle, self.name)

        async def fetch(project_id: str) -> AsyncIterator[Iterable[Sample]]:
            user = self.options.user.replace("{project}", project_id)
            buckets = await self._request(cycle, secret_key, "bucket", uid=user, stats="True")
            usage = await self._request(cycle, secret_key, "usage", uid=user)
            yield [*_bucket_samples(project_id, buckets, skipped), *_request_samples(project_id, usage, skipped)]

        round_robin = RoundRobin(
            cycle,
            self.name,
            SERVICE,
            cycle.provider(IHttpClient).seconds_for,
            requests_per_project=REQUESTS_PER_PROJECT,
            concurrency=self.options.concurrency,
        )
        samples = await round_robin.samples(fetch, skipped)
        skipped.report()
        return samples

    def _secret_key(self) -> str:
        try:
            return Path(self.options.secret_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self.name}: its secret cannot be read: {error}") from None

    async def _request(self, cycle: ICycle, secret_key: str, resource: str, **query: str) -> HttpResponse:
        options = self.options
        url = f"{options.url.rstrip('/')}/{resource}"
        date = formatdate(wall_seconds(cycle.clock), usegmt=True)
        headers = signature_headers("GET", urlsplit(url).path, options.access_key, secret_key, date)
        request = HttpRequest(method="GET", url=f"{url}?{urlencode({**query, 'format': 'json'})}", headers=headers)
        response: HttpResponse = await cycle.provider(IHttpClient).send(SERVICE, request)
        return response.checked()


def signature_headers(method: str, path: str, access_key: str, secret_key: str, date: str) -> dict[str, str]:
    """Return the headers of a request for ``path`` at ``date`` (RFC 7231), signed with S3 signature version 2."""
    digest = hmac.digest(secret_key.encode(), f"{method}\n\n\n{date}\n{path}".encode(), "sha1")
    return {"Date": date, "Authorization": f"AWS {access_key}:{base64.b64encode(digest).decode('ascii')}"}


def _sample(
    response: HttpResponse, project_id: str, meter: MeterDefinition, volume: float, resource: str = ""
) -> Sample:
    return meter.sample(volume, resource or project_id, response.received_at, project_id=project_id)


def _bucket_samples(project_id: str, response: HttpResponse, skipped: SkippedItems) -> Iterator[Sample]:
    """Yield the samples of each bucket, then the totals, unless the usage of a bucket is missing."""
    buckets = _mappings(response, response.json())
    objects: float = 0
    size: float = 0
    complete = True
    for bucket in buckets:
        resource = f"{project_id}/{bucket.get('bucket')}"
        try:
            bucket_objects, bucket_size = _usage(bucket)
        except BadItem as error:
            skipped.add(resource, error, resources=(resource, project_id))  # the totals are those of the project
            complete = False
            continue
        objects, size = objects + bucket_objects, size + bucket_size
        yield _sample(response, project_id, CONTAINER_OBJECTS, bucket_objects, resource)
        yield _sample(response, project_id, CONTAINER_SIZE, bucket_size, resource)
    if complete:
        yield _sample(response, project_id, OBJECTS, objects)
        yield _sample(response, project_id, SIZE, size)
    yield _sample(response, project_id, CONTAINERS, len(buckets))


def _usage(bucket: Mapping[str, Any]) -> tuple[float, float]:
    """Return objects and bytes of a bucket, summed over its parts (``rgw.main``, ``rgw.multimeta``); empty: none."""
    parts = bucket.get("usage")
    if not isinstance(parts, Mapping) or not all(isinstance(each, Mapping) for each in parts.values()):
        raise BadItem("no-volume", "usage is missing")
    objects = sum(number(each.get("num_objects"), "num_objects") for each in parts.values())
    return objects, sum(_bytes(each) for each in parts.values())


def _bytes(part: Mapping[str, Any]) -> float:
    """Return the bytes of a part of a bucket; gateways before Jewel report kibibytes only."""
    if "size" in part:
        return number(part["size"], "size")
    return number(part.get("size_kb"), "size_kb") * 1024


def _request_samples(project_id: str, response: HttpResponse, skipped: SkippedItems) -> Iterator[Sample]:
    document = response.json()
    summary = document.get("summary") if isinstance(document, Mapping) else None
    try:
        totals = [each.get("total") for each in _mappings(response, summary)]
        requests = sum(number(each.get("ops") if isinstance(each, Mapping) else None, "ops") for each in totals)
    except BadItem as error:
        skipped.add(project_id, error, resources=(project_id,))
    else:
        yield _sample(response, project_id, REQUESTS, requests)


def _mappings(response: HttpResponse, value: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise BadResponse(f"{response.request}: the response should be a list of objects")
    return value
