"""The OpenStack client that pollsters use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from meter.http.client import HttpResponse
    from meter.openstack.listing import Listing
    from meter.openstack.listing import Page


class IOpenStack(Interface):
    """The cloud that ``[openstack]`` configures. Methods that send requests raise ``Unavailable``."""

    async def url(service: str) -> str:
        """Return the URL of ``service``; raise :class:`~meter.openstack.catalogue.NoService`."""

    async def request(
        service: str,
        path: str,
        *,
        query: Mapping[str, str] = {},
        headers: Mapping[str, str] = {},
        method: str = "GET",
        base: str = "",
    ) -> HttpResponse:
        """Send an authenticated request; return its :class:`~meter.http.client.HttpResponse`, whose status is 2xx.

        ``path`` is appended to ``base``, by default the service's URL in the catalogue.
        """

    def seconds_for(service: str, requests: int) -> float:
        """Return how many seconds the rate limit of ``service`` needs for ``requests`` requests."""

    def pages(listing: Listing) -> AsyncIterator[Page]:
        """Iterate over the :class:`~meter.openstack.listing.Page` of a :class:`~meter.openstack.listing.Listing`."""


class IDependsOnIntervals(Interface):
    """A pollster whose options must fit the intervals at which pollsters run, its own included."""

    def interval_conflicts(interval_of: Callable[[str], float]) -> list[str]:
        """Return a message per option that does not fit; ``interval_of`` maps a pollster's name to seconds."""
