"""JSON schemas of the service's description of itself: versions and capabilities."""

from __future__ import annotations

import msgspec


class VersionLink(msgspec.Struct, omit_defaults=True):
    """A link to a version, or to its documentation."""

    rel: str
    href: str
    type: str | None = None


class MediaType(msgspec.Struct):
    """A media type of a version."""

    base: str
    type: str


class Version(msgspec.Struct, kw_only=True, rename={"media_types": "media-types"}):
    """A version of the API."""

    id: str
    status: str
    updated: str
    links: list[VersionLink]
    media_types: list[MediaType]


class VersionValues(msgspec.Struct):
    """A list of versions."""

    values: list[Version]


class Versions(msgspec.Struct):
    """The response of ``GET /``."""

    versions: VersionValues


def versions(base_url: str) -> Versions:
    """Return the only version, v2, with links below ``base_url``."""
    v2 = Version(
        id="v2",
        status="stable",
        updated="2013-02-13T00:00:00Z",
        links=[
            VersionLink("self", f"{base_url}/v2"),
            VersionLink("describedby", "http://docs.openstack.org/", "text/html"),
        ],
        media_types=[MediaType("application/json", "application/vnd.openstack.telemetry-v2+json")],
    )
    return Versions(VersionValues([v2]))


class Capabilities(msgspec.Struct):
    """Features that the API and the store support."""

    api: dict[str, bool]
    storage: dict[str, bool]
