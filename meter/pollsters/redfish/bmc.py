"""The requests to one BMC: which chassis it has, looked up now and then, and their readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meter.http import BadResponse
from meter.http import ErrorResponse
from meter.http import HttpRequest
from meter.http import IHttpClient
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.redfish.documents import MAX_CHASSIS
from meter.pollsters.redfish.documents import ChassisLinks
from meter.pollsters.redfish.documents import Document
from meter.pollsters.redfish.documents import EnergyReading
from meter.pollsters.redfish.documents import chassis
from meter.pollsters.redfish.documents import energy
from meter.pollsters.redfish.documents import energy_of
from meter.pollsters.redfish.documents import energy_sensor
from meter.pollsters.redfish.documents import link
from meter.pollsters.redfish.documents import members
from meter.pollsters.redfish.documents import path_of
from meter.pollsters.redfish.documents import same
from meter.pollsters.redfish.documents import watts
from meter.pollsters.redfish.documents import watts_of_power_control
from meter.pollsters.redfish.options import BmcOptions

ROOT = "/redfish/v1/"
MAX_PAGES = 8
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class ChassisReadings:
    """What a BMC says of a chassis: power and energy, each ``None`` if it has none, and when it said so.

    ``problems`` are why it may have said more.
    """

    id: str
    watts: int | float | None
    energy: EnergyReading | None
    read_at: datetime
    problems: tuple[BadItem, ...] = ()


class Bmc:
    """A BMC. ``authorization`` is the header with the credentials."""

    def __init__(self, options: BmcOptions, client: IHttpClient, authorization: str) -> None:
        self._options = options
        self._client = client
        self._headers = {"Accept": "application/json", "OData-Version": "4.0", "Authorization": authorization}
        self._read_at: datetime | None = None

    async def find_chassis(self) -> list[ChassisLinks]:
        """Return the chassis to meter; raise ``Unavailable`` or :class:`~meter.pollsters.openstack.table.BadItem`."""
        paths: list[str] = []
        page = link(await self._get(ROOT), "Chassis")
        if not page:
            raise BadItem("no-chassis", "its service root has no link to a collection of chassis")
        for _ in range(MAX_PAGES):
            collection = await self._get(page)
            paths += members(collection)
            page = path_of(collection.get("Members@odata.nextLink"))
            if not page:
                break
        paths = list(dict.fromkeys(paths))
        if len(paths) > MAX_CHASSIS:
            raise BadItem("no-chassis", f"it has {len(paths)} chassis or more, above the limit of {MAX_CHASSIS}")
        found = [chassis(await self._get(path), path) for path in paths]
        wanted = self._options.chassis
        if wanted:
            if missing := sorted(set(wanted) - {each.id for each in found}):
                known = ", ".join(each.id for each in found) or "none"
                raise BadItem("no-chassis", f"it has no chassis {', '.join(missing)}; it has: {known}"[:300])
            found = [each for each in found if each.id in wanted]
        else:
            outer = [each for each in found if not any(same(each.inside, path) for path in paths)]
            found = [each for each in outer if each.environment or each.power]
        if not found:
            raise BadItem("no-chassis", "it has no chassis with readings of power or energy")
        if len({each.id for each in found}) < len(found):
            raise BadItem("no-chassis", "several of its chassis have the same id")
        return found

    async def read(self, links: ChassisLinks, *, sensors: dict[str, bool]) -> ChassisReadings:
        """Return the readings of a chassis; ``sensors`` remembers, by path, which sensors know when they were reset."""
        power: int | float | None = None
        used: EnergyReading | None = None
        problems = []
        if links.environment:
            environment = await self._get_if_there(links.environment)
            try:
                power = watts(environment)
            except BadItem as error:
                problems.append(error)
            try:
                used = energy(environment)
                if used is not None and not used.since:
                    used = await self._of_sensor(energy_sensor(environment), sensors) or used
            except BadItem as error:
                problems.append(error)
        if power is None and links.power:
            try:
                power = watts_of_power_control(await self._get_if_there(links.power))
            except BadItem as error:
                problems.append(error)
        if self._read_at is None:
            raise BadItem("no-chassis", "it has no documents with readings any more")
        return ChassisReadings(links.id, power, used, self._read_at, tuple(problems))

    async def _of_sensor(self, path: str, sensors: dict[str, bool]) -> EnergyReading | None:
        """Return what the sensor itself says, if it says since when; else ``None``."""
        if not path or not sensors.get(path, True):
            return None
        found = energy_of(await self._get_if_there(path), "Sensor")
        sensors[path] = found is not None and bool(found.since)
        return found if sensors[path] else None

    async def _get_if_there(self, path: str) -> Document:
        """Return a document, empty if there is none: some BMCs link to what they do not have."""
        try:
            return await self._get(path)
        except ErrorResponse as error:
            if error.status != NOT_FOUND:
                raise
            return {}

    async def _get(self, path: str) -> Document:
        request = HttpRequest(method="GET", url=f"{self._options.url}{path}", headers=self._headers)
        response = (await self._client.send(f"redfish:{self._options.host}", request)).checked()
        document: Any = response.json()
        if not isinstance(document, Mapping):
            raise BadResponse(f"{request}: the response is not an object")
        self._read_at = response.received_at
        return document
