"""The HTTP client that pollsters use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from meter.http.client import HttpRequest
    from meter.http.client import HttpResponse


class IHttpClient(Interface):
    """An HTTP client that limits the requests to each service."""

    async def send(service: str, request: HttpRequest) -> HttpResponse:
        """Return the response, whatever its status; ``service`` selects the limits. Raises ``Unavailable``."""

    def seconds_for(service: str, requests: int) -> float:
        """Return how many seconds the rate limit of ``service`` needs for ``requests`` requests."""
