"""What pollsters ask: OpenStack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from meter.http.exchange import HttpResponse
    from meter.openstack.listing import Listing
    from meter.openstack.listing import Page


class IOpenStack(Interface):
    """The cloud that ``[openstack]`` names, asked with one token. Every method raises ``Unavailable``."""

    async def url(service: str) -> str:
        """Return where ``service`` is; :class:`~meter.openstack.catalogue.NoService` where the catalogue has none."""

    async def ask(
        service: str,
        path: str,
        *,
        query: Mapping[str, str] = {},
        headers: Mapping[str, str] = {},
        method: str = "GET",
        base: str = "",
    ) -> HttpResponse:
        """Return the service's :class:`~meter.http.exchange.Answer` of success.

        ``path`` follows the service's URL in the catalogue, or ``base``.
        """

    def seconds_for(service: str, requests: int) -> float:
        """Return how long the budget of ``service`` takes for so many requests, if nothing else does."""

    def pages(listing: Listing) -> AsyncIterator[Page]:
        """Iterate over the :class:`~meter.openstack.listing.Page` of a :class:`~meter.openstack.listing.Listing`."""


class IDependsOnIntervals(Interface):
    """A pollster whose options must fit the intervals of pollsters, its own among them."""

    def interval_conflicts(interval_of: Callable[[str], float]) -> list[str]:
        """Return a clause for each option that does not fit; ``interval_of`` gives the seconds of a pollster by its name."""
