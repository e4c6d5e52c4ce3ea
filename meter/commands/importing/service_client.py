"""Requests to the REST API of a service (Gnocchi, CloudKitty), with a token of Keystone or by basic authentication."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from urllib.parse import quote
from urllib.parse import urlencode

from meter.commands.importing.import_source import ImportSourceError
from meter.http.client import ErrorResponse
from meter.http.client import HttpRequest
from meter.http.client import HttpResponse
from meter.openstack.catalogue import NoService
from meter.openstack.keystone import Keystone

UNAUTHORIZED = 401
FORBIDDEN = 403


class SendsRequests(Protocol):
    """An HTTP client."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Return the response, whatever its status."""


class BasicAuthentication:
    """A user with a password for the service at ``url``, as Gnocchi with ``[api] auth_mode = basic`` has them."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url
        self._header = base64.b64encode(f"{user}:{password}".encode()).decode()

    async def url_and_headers(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL of the service and the headers of a request."""
        return self._url, {"Authorization": f"Basic {self._header}"}

    def reject(self) -> bool:
        """Return whether other headers may be accepted: never."""
        return False


class KeystoneAuthentication:
    """Tokens of ``keystone``; without ``url`` a ``service`` of this type is where the catalogue says, at this ``interface`` in this ``region``."""

    def __init__(self, keystone: Keystone, url: str, *, interface: str, region: str, service: str) -> None:
        self._keystone = keystone
        self._service = service
        self._url = url
        self._interface = interface
        self._region = region
        self._used: Any = None

    async def url_and_headers(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL of the service and the headers of a request."""
        self._used = token = await self._keystone.token()
        url = self._url or token.catalogue.url(self._service, interface=self._interface, region=self._region)
        return url, {"X-Auth-Token": token.id}

    def reject(self) -> bool:
        """Discard the token that was rejected; another one may be accepted."""
        self._keystone.reject(self._used)
        return True


class Authentication(Protocol):
    """Where the service is, and who asks."""

    async def url_and_headers(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL of the service and the headers of a request."""

    def reject(self) -> bool:
        """Note that they were rejected; return whether others may be accepted."""


class ServiceClient:
    """Asks a service over ``http``. Errors of the network and of the server are :class:`~meter.interfaces.Unavailable`.

    ``refusal`` is what it means if the user may not ask something.
    """

    def __init__(self, http: SendsRequests, authentication: Authentication, *, refusal: str) -> None:
        self._http = http
        self._authentication = authentication
        self._refusal = refusal

    async def get(self, *path: str, query: Sequence[tuple[str, str]] = ()) -> Any:
        """Return the JSON at ``path`` under ``/v1``; :class:`~meter.http.client.ErrorResponse` for an error status.

        Raises :class:`ImportSourceError` if the user may not ask that.
        """
        for attempt in (1, 2):
            root, headers = await self._url_and_headers()
            url = "/".join((root.rstrip("/"), "v1", *(quote(part, safe="") for part in path)))
            request = HttpRequest(
                method="GET",
                url=f"{url}?{urlencode(query)}" if query else url,
                headers={"Accept": "application/json", **headers},
            )
            response = await self._http.send(request)
            if response.status == UNAUTHORIZED and attempt == 1 and self._authentication.reject():
                continue
            break
        try:
            return response.checked().json()
        except ErrorResponse as error:
            if error.status in (UNAUTHORIZED, FORBIDDEN):
                raise ImportSourceError(f"{self._refusal}: {error}") from error
            raise

    async def _url_and_headers(self) -> tuple[str, Mapping[str, str]]:
        try:
            return await self._authentication.url_and_headers()
        except ErrorResponse as error:
            if error.status == UNAUTHORIZED:
                raise ImportSourceError(str(error)) from error
            raise
        except NoService as error:
            raise ImportSourceError(str(error)) from error
