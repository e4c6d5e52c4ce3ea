"""The service catalogue of a token: the URLs of services by type, region and interface."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from meter.interfaces import Unavailable

ALIASES: Mapping[str, tuple[str, ...]] = {
    "block-storage": ("block-storage", "volumev3", "block-store", "volume"),
    "shared-file-system": ("shared-file-system", "sharev2", "share"),
    "alarm": ("alarm", "alarming"),
    "dns": ("dns",),
    "load-balancer": ("load-balancer",),
}
"""Service types under which a service may be registered, in order of preference."""


class NoService(Unavailable):
    """A service that the token's catalogue lacks; the text names those that it has."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One URL of one service."""

    service: str
    interface: str
    region: str
    url: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The endpoints in a token."""

    endpoints: tuple[Endpoint, ...] = ()

    @classmethod
    def read(cls, catalog: Any) -> Catalogue:
        """Return the catalogue in a token's body; malformed entries are skipped."""
        found = []
        for service in _mappings(catalog):
            for endpoint in _mappings(service.get("endpoints")):
                kind, interface, url = service.get("type"), endpoint.get("interface"), endpoint.get("url")
                if isinstance(kind, str) and isinstance(interface, str) and isinstance(url, str):
                    region = endpoint.get("region_id") or endpoint.get("region") or ""
                    found.append(Endpoint(kind, interface, str(region), url))
        return cls(tuple(found))

    def url(self, service: str, *, interface: str, region: str = "") -> str:
        """Return the URL of ``service`` without a trailing slash; raise :class:`NoService`."""
        for kind in ALIASES.get(service, (service,)):
            for endpoint in self.endpoints:
                if (endpoint.service, endpoint.interface) == (kind, interface) and region in ("", endpoint.region):
                    return endpoint.url.rstrip("/")
        where = f" in region {region!r}" if region else ""
        known = sorted({each.service for each in self.endpoints if each.interface == interface})
        raise NoService(
            f"the catalogue has no {interface} endpoint of {service!r}{where}; it has {', '.join(known) or 'none at all'}"
        )


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def versioned(url: str, version: str) -> str:
    """Return ``url`` with ``version`` (``v3``) appended, unless its path contains a version already."""
    url = url.rstrip("/")
    return url if re.search(r"/v\d+(\.\d+)?(/|$)", urlsplit(url).path) else f"{url}/{version}"
