"""Swift: what each project's account holds, and each of its containers."""

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
from meter.pollsters.openstack.pollster import Omitted
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.round_robin import Rounds
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
"""An account has the id of its project. (The name of a container may be given to another one.)"""

SERVICE = "object-store"
MOST_PAGES = 1000


class StorageOptions(BaseModel):
    """Options of the Swift pollster."""

    model_config = ConfigDict(frozen=True, strict=True)

    reseller_prefix: str = "AUTH_"
    """What stands before the project's id in the name of its account."""
    at_once: int = Field(default=8, gt=0)
    """Accounts asked for at the same time; ``[openstack]`` has the budget that they share."""


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class StoragePollster:
    """Meters the account of every project, and its containers, which one question answers together.

    Where the budget, or the service, does not let all of them be asked within a cycle, those that are left come first
    in the next one, and are counted as left out of this.
    """

    options: StorageOptions = field(default_factory=StorageOptions)
    name: str = "storage"
    meters: tuple[MeterDefinition, ...] = (OBJECTS, SIZE, CONTAINERS, CONTAINER_OBJECTS, CONTAINER_SIZE)

    def configured(self, options: StorageOptions) -> StoragePollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Work where the catalogue has Swift."""
        return await enabled_with(context, SERVICE)

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all accounts; of one that cannot be read there are none."""
        openstack = cycle.provider(IOpenStack)
        samples_skipped = Omitted(cycle, self.name)
        root = await self._root(openstack)

        async def about(project_id: str) -> AsyncIterator[Iterable[Sample]]:
            async for answer in self._listing(openstack, root, project_id):
                yield _samples(project_id, answer, samples_skipped)

        rounds = Rounds(cycle, self.name, SERVICE, openstack.seconds_for, at_once=self.options.at_once)
        samples = await rounds.samples(about, samples_skipped)
        samples_skipped.tell()
        return samples

    async def _root(self, openstack: Any) -> str:
        """Return the URL that accounts follow: endpoints of the catalogue may name the account of our own project."""
        url: str = await openstack.url(SERVICE)
        head, _, last = url.rpartition("/")
        return head if last.startswith(self.options.reseller_prefix) else url

    async def _listing(self, openstack: Any, root: str, project_id: str) -> AsyncIterator[HttpResponse]:
        marker = ""
        for _ in range(MOST_PAGES):
            query = {"format": "json", **({"marker": marker} if marker else {})}
            account = f"{self.options.reseller_prefix}{project_id}"
            answer = await openstack.ask(SERVICE, account, base=root, query=query)
            yield answer
            names = [name for each in _containers(answer) if isinstance(name := each.get("name"), str)]
            if not names or names[-1] <= marker or len(names) < _page_size(answer, len(names)):
                return
            marker = names[-1]


def _page_size(answer: HttpResponse, got: int) -> int:
    """Containers of the account: while fewer came, there may be more to ask for."""
    total = answer.header("x-account-container-count") or "0"
    return got if total.isdecimal() and int(total) > got else got + 1


def _containers(answer: HttpResponse) -> Sequence[Mapping[str, Any]]:
    if not answer.body:
        return []
    found = answer.json()
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise BadResponse(f"{answer.request}: the answer should be a list of containers")
    return found


def _samples(project_id: str, answer: HttpResponse, samples_skipped: Omitted) -> Iterator[Sample]:
    def sample(meter: MeterDefinition, resource: str, value: Any, name: str, metadata: Mapping[str, Any]) -> Sample:
        return Sample(
            name=meter.name,
            type=meter.type,
            unit=meter.unit,
            volume=number(value, name),
            resource_id=resource,
            timestamp=answer.received_at,
            project_id=project_id,
            resource_metadata=metadata,
        )

    if "marker=" not in answer.request.url:
        for meter, header in ACCOUNT:
            try:
                yield sample(meter, project_id, answer.header(header), header, EXISTING)
            except BadItem as error:
                samples_skipped.add(project_id, error)
    for container in _containers(answer):
        resource = f"{project_id}/{container.get('name')}"
        metadata = {key: container[key] for key in ("storage_policy", "last_modified") if key in container}
        for meter, key in CONTAINER:
            try:
                yield sample(meter, resource, container.get(key), key, metadata)
            except BadItem as error:
                samples_skipped.add(resource, error)
