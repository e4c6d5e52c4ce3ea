"""The JSON shapes of what the service says of itself."""

from __future__ import annotations

import msgspec


class VersionLink(msgspec.Struct, omit_defaults=True):
    """Where a version is served, or described."""

    rel: str
    href: str
    type: str | None = None


class MediaType(msgspec.Struct):
    """A type that a version is served in."""

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
    """All versions of the API."""

    values: list[Version]


class Versions(msgspec.Struct):
    """What ``/`` says."""

    versions: VersionValues


def versions(base_url: str) -> Versions:
    """Return the one version there is, served below ``base_url``."""
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
    """What the API and the store can do."""

    api: dict[str, bool]
    storage: dict[str, bool]
