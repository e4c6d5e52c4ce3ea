"""The options of the pollster: classes of destinations, and whether what instances receive is counted, too."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from itertools import chain
from typing import Annotated
from typing import Any

from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator

from meter.pollsters.egress.classes import INTERNET
from meter.pollsters.egress.classes import LOCAL
from meter.pollsters.egress.classes import DestinationClasses
from meter.pollsters.egress.classes import Network

MAX_CLASSES = 16
MAX_PREFIXES = 10_000


def _network(value: Any) -> Network:
    if not isinstance(value, str):
        raise ValueError('a prefix is a text such as "10.0.0.0/8"')
    try:
        return ip_network(value)
    except ValueError:
        try:
            right = ip_network(value, strict=False)
        except ValueError:
            raise ValueError(f'should be a prefix such as "10.0.0.0/8" or "2001:db8::/32", not {value!r:.60}') from None
        raise ValueError(f"{value} has more bits than its length: write {right}") from None


Prefix = Annotated[Network, BeforeValidator(_network)]


class DestinationClass(BaseModel):
    """A class of destinations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,31}$",
        description="Name of the class, with which its meters end: letters, digits and _.",
    )
    prefixes: tuple[Prefix, ...] = Field(
        max_length=MAX_PREFIXES,
        description='Addresses of IPv4 and IPv6: ["10.0.0.0/8", "2001:db8::/32"].',
    )


class EgressOptions(BaseModel):
    """The options of the pollster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[DestinationClass, ...] = Field(
        default=(),
        max_length=MAX_CLASSES,
        description="Classes of destinations; the first that contains an address is used. Without classes nothing is counted.",
    )
    incoming: bool = Field(
        default=False, description="Count what instances receive, too, by its source. Needs Linux 5.16 or newer."
    )

    @model_validator(mode="after")
    def _can_all_be_used(self) -> EgressOptions:
        """Refuse classes with the same name or a reserved one, and prefixes that no address is ever looked for in."""
        names = [each.name for each in self.classes]
        for name in names:
            if name in (LOCAL, INTERNET):
                raise ValueError(f"the class {name} exists without being configured: choose another name")
            if names.count(name) > 1:
                raise ValueError(f"there are two classes with the name {name}: give one all prefixes")
        first: dict[Network, str] = {}
        for each in self.classes:
            if not each.prefixes:
                raise ValueError(f"the class {each.name} has no prefixes: add some, or leave the class out")
            for prefix in each.prefixes:
                for wider in chain([prefix], _wider(prefix)):
                    if first.get(wider, each.name) != each.name:
                        raise ValueError(
                            f"{prefix} of the class {each.name} is never used, because {wider} of the class {first[wider]}"
                            " comes first: put the class with the smaller prefixes before the other"
                        )
                first.setdefault(prefix, each.name)
        return self

    def destination_classes(self) -> DestinationClasses:
        """Return the classes."""
        return DestinationClasses([(each.name, each.prefixes) for each in self.classes])


def _wider(prefix: Network) -> Iterator[Network]:
    while prefix.prefixlen:
        prefix = prefix.supernet()
        yield prefix
