"""Ceph's object gateway: what each project holds in it, and how often it was asked, as its administrative API tells.

That API knows no tokens of Keystone: requests are signed as for S3, in the older way (version 2), which is a dozen lines
and which every gateway takes.
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
from meter.pollsters.openstack.pollster import Omitted
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.round_robin import Rounds
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
QUESTIONS = 2
"""About each project."""


class RadosgwOptions(BaseModel):
    """Options of the pollster, which is off without ``url``."""

    model_config = ConfigDict(frozen=True, strict=True)

    url: str = Field(default="", pattern=r"^(https?://[^?#]+)?$")
    """The administrative API: ``http://rgw.example.org:7480/admin``."""
    access_key: str = ""
    """Of a user with the capabilities ``buckets=read; usage=read``."""
    secret_key_file: str = ""
    """A file that holds that user's secret key."""
    user: str = "{project}"
    """A project's user: ``{project}${project}`` where the gateway makes a tenant of each project."""
    at_once: int = Field(default=4, gt=0)
    """Projects asked about at the same time."""


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class RadosgwPollster:
    """Meters the buckets and requests of every project that is a user of the gateway; in rounds, as the one of Swift."""

    options: RadosgwOptions = field(default_factory=RadosgwOptions)
    name: str = SERVICE
    meters: tuple[MeterDefinition, ...] = (OBJECTS, SIZE, CONTAINERS, CONTAINER_OBJECTS, CONTAINER_SIZE, REQUESTS)

    def configured(self, options: RadosgwOptions) -> RadosgwPollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Work where it is told which gateway to ask, and there is a Keystone that lists the projects."""
        if not (self.options.url and self.options.access_key and self.options.secret_key_file):
            return Disabled("[pollsters.radosgw] has no url, access_key and secret_key_file")
        return await enabled_with(context, "identity")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all projects; of one that cannot be read there are none."""
        secret_key = self._secret_key()
        samples_skipped = Omitted(cycle, self.name)

        async def about(project_id: str) -> AsyncIterator[Iterable[Sample]]:
            user = self.options.user.replace("{project}", project_id)
            buckets = await self._ask(cycle, secret_key, "bucket", uid=user, stats="True")
            usage = await self._ask(cycle, secret_key, "usage", uid=user)
            yield [*_held(project_id, buckets, samples_skipped), *_asked(project_id, usage, samples_skipped)]

        seconds_for = cycle.provider(IHttpClient).seconds_for
        rounds = Rounds(cycle, self.name, SERVICE, seconds_for, questions=QUESTIONS, at_once=self.options.at_once)
        samples = await rounds.samples(about, samples_skipped)
        samples_skipped.tell()
        return samples

    def _secret_key(self) -> str:
        try:
            return Path(self.options.secret_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self.name}: its secret cannot be read: {error}") from None

    async def _ask(self, cycle: ICycle, secret_key: str, what: str, **query: str) -> HttpResponse:
        options = self.options
        url = f"{options.url.rstrip('/')}/{what}"
        date = formatdate(wall_seconds(cycle.clock), usegmt=True)
        headers = signed("GET", urlsplit(url).path, options.access_key, secret_key, date)
        request = HttpRequest(method="GET", url=f"{url}?{urlencode({**query, 'format': 'json'})}", headers=headers)
        answer: HttpResponse = await cycle.provider(IHttpClient).exchange(SERVICE, request)
        return answer.checked()


def signed(method: str, path: str, access_key: str, secret_key: str, date: str) -> dict[str, str]:
    """Return the headers that sign a request for ``path`` made at ``date``, as S3 describes it (version 2)."""
    digest = hmac.digest(secret_key.encode(), f"{method}\n\n\n{date}\n{path}".encode(), "sha1")
    return {"Date": date, "Authorization": f"AWS {access_key}:{base64.b64encode(digest).decode('ascii')}"}


def _sample(answer: HttpResponse, project_id: str, meter: MeterDefinition, volume: float, resource: str = "") -> Sample:
    return Sample(
        name=meter.name,
        type=meter.type,
        unit=meter.unit,
        volume=volume,
        resource_id=resource or project_id,
        project_id=project_id,
        timestamp=answer.received_at,
    )


def _held(project_id: str, answer: HttpResponse, samples_skipped: Omitted) -> Iterator[Sample]:
    """Yield what each bucket holds, then all of them together, unless one does not say."""
    buckets = _mappings(answer, answer.json())
    objects: float = 0
    size: float = 0
    whole = True
    for bucket in buckets:
        resource = f"{project_id}/{bucket.get('bucket')}"
        try:
            held = _usage(bucket)
        except BadItem as error:
            samples_skipped.add(resource, error)
            whole = False
            continue
        objects, size = objects + held[0], size + held[1]
        yield _sample(answer, project_id, CONTAINER_OBJECTS, held[0], resource)
        yield _sample(answer, project_id, CONTAINER_SIZE, held[1], resource)
    if whole:
        yield _sample(answer, project_id, OBJECTS, objects)
        yield _sample(answer, project_id, SIZE, size)
    yield _sample(answer, project_id, CONTAINERS, len(buckets))


def _usage(bucket: Mapping[str, Any]) -> tuple[float, float]:
    """Return objects and bytes of a bucket, in all its parts (``rgw.main``, ``rgw.multimeta``); an empty one has none."""
    parts = bucket.get("usage")
    if not isinstance(parts, Mapping) or not all(isinstance(each, Mapping) for each in parts.values()):
        raise BadItem("no-volume", "usage is not known")
    objects = sum(number(each.get("num_objects"), "num_objects") for each in parts.values())
    return objects, sum(_bytes(each) for each in parts.values())


def _bytes(part: Mapping[str, Any]) -> float:
    """Gateways before Jewel say kibibytes only."""
    if "size" in part:
        return number(part["size"], "size")
    return number(part.get("size_kb"), "size_kb") * 1024


def _asked(project_id: str, answer: HttpResponse, samples_skipped: Omitted) -> Iterator[Sample]:
    document = answer.json()
    summary = document.get("summary") if isinstance(document, Mapping) else None
    try:
        totals = [each.get("total") for each in _mappings(answer, summary)]
        requests = sum(number(each.get("ops") if isinstance(each, Mapping) else None, "ops") for each in totals)
    except BadItem as error:
        samples_skipped.add(project_id, error)
    else:
        yield _sample(answer, project_id, REQUESTS, requests)


def _mappings(answer: HttpResponse, value: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise BadResponse(f"{answer.request}: the answer should be a list of mappings")
    return value
