"""How Meter measures what CloudKitty calls a service: the metrics of its default ``metrics.yml``, and those that a file adds."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError


class BadServices(ValueError):
    """A file of services that cannot be used; the text says where and why."""


class MeteredService(BaseModel):
    """A SKU for a service, with the keys of ``[[sku]]``.

    ``fields`` are CloudKitty's names of the values on which prices may depend, and Meter's. ``one``: CloudKitty counts 1 in each period
    (``mutate: NUMBOOL``). ``remark`` is what differs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    usage: Literal["exists", "integral", "increase", "sum"]
    unit: str
    name: str = ""
    service: str = ""
    category: str = "Other"
    meter: str = ""
    factor: str = ""
    resource_kind: str = ""
    times_size: bool = False
    states: tuple[str, ...] = ()
    fields: Mapping[str, str] = Field(default_factory=dict)
    one: bool = False
    remark: str = ""

    @property
    def timed(self) -> bool:
        """Whether the quantity is a duration, so that a cost for a period is one for a part of an hour."""
        return self.usage in ("exists", "integral")


_LARGEST = "CloudKitty takes the largest value in a period for all of it, Meter each value for the seconds that it had"

_INSTANCE = MeteredService(
    usage="exists",
    resource_kind="instance",
    unit="Hours",
    name="Instance",
    service="Virtual Machines",
    category="Compute",
    fields={"flavor_name": "flavor", "flavor": "flavor"},
    one=True,
)
_VOLUME = MeteredService(
    usage="integral",
    meter="volume.size",
    factor="1/3600",
    unit="GiB-Hours",
    name="Block storage",
    service="Block Storage",
    category="Storage",
    fields={"volume_type": "volume_type"},
    remark=_LARGEST,
)
_FLOATING_IP = MeteredService(
    usage="exists",
    resource_kind="floating_ip",
    unit="Hours",
    name="Public IPv4 address",
    service="Network",
    category="Networking",
    one=True,
)
_IMAGE = MeteredService(
    usage="integral",
    meter="image.size",
    factor="1/3774873600",
    unit="MiB-Hours",
    name="Image",
    service="Images",
    category="Storage",
    fields={"disk_format": "disk_format", "container_format": "container_format"},
    remark=_LARGEST,
)


def _traffic(direction: str) -> MeteredService:
    return MeteredService(
        usage="increase",
        meter=f"network.{direction}.bytes",
        factor="1/1000000",
        unit="MB",
        name=f"{direction.capitalize()} traffic",
        service="Network",
        category="Networking",
    )


KNOWN: Mapping[str, MeteredService] = {
    "instance": _INSTANCE,
    "compute": _INSTANCE,
    "volume.size": _VOLUME,
    "volume": _VOLUME,
    "ip.floating": _FLOATING_IP,
    "network.floating": _FLOATING_IP,
    "image.size": _IMAGE,
    "image": _IMAGE,
    "network.incoming.bytes": _traffic("incoming"),
    "network.outgoing.bytes": _traffic("outgoing"),
    "network.incoming.bytes.rate": _traffic("incoming"),
    "network.outgoing.bytes.rate": _traffic("outgoing"),
    "network.bw.in": _traffic("incoming"),
    "network.bw.out": _traffic("outgoing"),
    "radosgw.objects.size": MeteredService(
        usage="integral",
        meter="radosgw.objects.size",
        factor="1/3865470566400",
        unit="GiB-Hours",
        name="Object storage",
        service="Object Storage",
        category="Storage",
        remark=_LARGEST,
    ),
}
"""The services of CloudKitty's default ``metrics.yml``, and those of CloudKitty before 7, by name."""


def metered_services(path: Path | None) -> Mapping[str, MeteredService]:
    """Return the services by name, with those in the file at ``path``; raise :class:`BadServices`."""
    if path is None:
        return KNOWN
    try:
        tables: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        extra = {name: MeteredService.model_validate(table) for name, table in tables["service"].items()}
    except OSError as error:
        raise BadServices(f"{path}: {error.strerror}") from None
    except (KeyError, AttributeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadServices(f'{path}: should have tables [service."NAME"]: {error}') from None
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        raise BadServices(f"{path}: service: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None
    return {**KNOWN, **extra}
