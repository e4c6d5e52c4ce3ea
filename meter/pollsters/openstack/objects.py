"""Swift: objects, bytes and containers of each project's account, and of each container."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from zope.interface import implementer

from meter.http import BadResponse
from meter.http import HttpResponse
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.openstack import IOpenStack
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.round_robin import RoundRobin
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import gauge
from meter.pollsters.openstack.table import number
from meter.sample import EXISTED_THROUGHOUT
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.sample import with_reserved

OBJECTS = gauge("storage.objects", "object")
SIZE = gauge("storage.objects.size", "B")
CONTAINERS = gauge("storage.objects.containers", "container")
CONTAINER_OBJECTS = gauge("storage.containers.objects", "object")
CONTAINER_SIZE = gauge("storage.containers.objects.size", "B")

ACCOUNT = (
    (OBJECTS, "x-account-object-count"),
    (SIZE, "x-account-bytes-used"),
    (CONTAINERS, "x-account-container-count"),
)
CONTAINER = ((CONTAINER_OBJECTS, "count"), (CONTAINER_SIZE, "bytes"))

EXISTING = with_reserved({}, run=EXISTED_THROUGHOUT)
"""Metadata of accounts, which have the ids of their projects. (The name of a container may be reused.)"""

SERVICE = "object-store"
MAX_PAGES = 1000


class StorageOptions(BaseModel):
    """Options of the Swift pollster."""

    model_config = ConfigDict(frozen=True, strict=True)

    reseller_prefix: str = "AUTH_"
    """The prefix of the project's id in the name of its account."""
    concurrency: int = Field(default=8, gt=0)
    """How many accounts are requested at the same time, within the limits of ``[openstack]``."""


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class StoragePollster:
    """Meters the account of every project and its containers, with one request per account.

    If the rate limit or the service does not permit all of them within a cycle, the others are counted as skipped and
    are first in the next cycle.
    """

    options: StorageOptions = field(default_factory=StorageOptions)
    name: str = "storage"
    meters: tuple[MeterDefinition, ...] = (OBJECTS, SIZE, CONTAINERS, CONTAINER_OBJECTS, CONTAINER_SIZE)

    def configured(self, options: StorageOptions) -> StoragePollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the catalogue has Swift."""
        return await enabled_with(context, SERVICE)

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all accounts; an account that cannot be read has none."""
        openstack = cycle.provider(IOpenStack)
        skipped = SkippedItems(cycle, self.name)
        root = await self._root(openstack)

        async def fetch(project_id: str) -> AsyncIterator[Iterable[Sample]]:
            async for response in self._pages(openstack, root, project_id):
                yield _samples(project_id, response, skipped)

        round_robin = RoundRobin(cycle, self.name, SERVICE, openstack.seconds_for, concurrency=self.options.concurrency)
        samples = await round_robin.samples(fetch, skipped)
        skipped.report()
        return samples

    async def _root(self, openstack: Any) -> str:
        """Return the URL to which accounts are appended: the catalogue's endpoint may end in our own account."""
        url: str = await openstack.url(SERVICE)
        head, _, last = url.rpartition("/")
        return head if last.startswith(self.options.reseller_prefix) else url

    async def _pages(self, openstack: Any, root: str, project_id: str) -> AsyncIterator[HttpResponse]:
        marker = ""
        for _ in range(MAX_PAGES):
            query = {"format": "json", **({"marker": marker} if marker else {})}
            account = f"{self.options.reseller_prefix}{project_id}"
            response = await openstack.request(SERVICE, account, base=root, query=query)
            yield response
            names = [name for each in _containers(response) if isinstance(name := each.get("name"), str)]
            if not names or names[-1] <= marker or not _may_have_more(response, len(names)):
                return
            marker = names[-1]


def _may_have_more(response: HttpResponse, received: int) -> bool:
    """Return whether the account has more containers than the ``received`` ones of a page."""
    total = response.header("x-account-container-count") or "0"
    return total.isdecimal() and int(total) > received


def _containers(response: HttpResponse) -> Sequence[Mapping[str, Any]]:
    if not response.body:
        return []
    found = response.json()
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise BadResponse(f"{response.request}: the response should be a list of containers")
    return found


def _samples(project_id: str, response: HttpResponse, skipped: SkippedItems) -> Iterator[Sample]:
    def sample(meter: MeterDefinition, resource: str, value: Any, name: str, metadata: Mapping[str, Any]) -> Sample:
        volume = number(value, name)
        return meter.sample(volume, resource, response.received_at, project_id=project_id, resource_metadata=metadata)

    if "marker=" not in response.request.url:
        for meter, header in ACCOUNT:
            try:
                yield sample(meter, project_id, response.header(header), header, EXISTING)
            except BadItem as error:
                skipped.add(project_id, error, resources=(project_id,))
    for container in _containers(response):
        resource = f"{project_id}/{container.get('name')}"
        metadata = {key: container[key] for key in ("storage_policy", "last_modified") if key in container}
        for meter, key in CONTAINER:
            try:
                yield sample(meter, resource, container.get(key), key, metadata)
            except BadItem as error:
                skipped.add(resource, error, resources=(resource,))
