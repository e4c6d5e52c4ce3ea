"""What the HTTP client provides to whoever sends requests with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from meter.http.exchange import HttpRequest
    from meter.http.exchange import HttpResponse


class IHttpClient(Interface):
    """HTTP within budgets."""

    async def exchange(service: str, request: HttpRequest) -> HttpResponse:
        """Return the :class:`~meter.http.exchange.Answer`; ``service`` names the budget. Raises ``Unavailable``."""

    def seconds_for(service: str, requests: int) -> float:
        """Return how long the budget of ``service`` takes for so many requests, if nothing else does."""
