"""A cloud made of captured responses, reached through treq's stub: no sockets, and time only by a Clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from urllib.parse import urlsplit

from treq.testing import StubTreq
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from meter.http import HttpResponse
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.http.client import HttpClient
from meter.http.client import HttpRequest
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import Keystone

DATA = Path(__file__).parent / "data/api"


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as the cloud received it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class JsonResponse:
    """A response of the cloud; ``silent``: it never comes."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False


def reply(document: Any, status: int = 200, **headers: str) -> JsonResponse:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return JsonResponse(status, json.dumps(document).encode(), {"Content-Type": "application/json", **more})


def captured(name: str) -> JsonResponse:
    """The captured response in ``name``.json."""
    exchange = json.loads((DATA / f"{name}.json").read_text())
    body = exchange["body"]
    headers = {key: value for key, value in exchange["response_headers"] if key not in ("Content-Length", "Connection")}
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return JsonResponse(exchange["status"], raw, headers)


def document(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())["body"]


Answering = Callable[[ReceivedRequest], JsonResponse]


class StubCloud(Resource):
    """Responds by method and path: ``cloud.on("GET", "/v3/projects", reply(...))``. ``requests`` has all requests."""

    isLeaf = True  # noqa: N815  # Twisted reads it so

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ReceivedRequest] = []
        self.waiting: list[Any] = []
        self._answers: dict[tuple[str, str], Answering] = {}

    def on(self, method: str, path: str, *replies: JsonResponse | Answering) -> None:
        """Respond with each of ``replies`` in order, and with the last from then on."""
        left = list(replies)

        def answer(request: ReceivedRequest) -> JsonResponse:
            chosen = left.pop(0) if len(left) > 1 else left[0]
            return chosen if isinstance(chosen, JsonResponse) else chosen(request)

        self._answers[method, path] = answer

    def times(self, method: str, path: str) -> int:
        return sum((each.method, each.path) == (method, path) for each in self.requests)

    def render(self, request: Any) -> Any:
        parts = urlsplit(request.uri.decode())
        received = ReceivedRequest(
            request.method.decode(), parts.path, parse_qs(parts.query), request.requestHeaders, request.content.read()
        )
        self.requests.append(received)
        answer = self._answers.get((received.method, received.path))
        found = (
            answer(received)
            if answer
            else JsonResponse(404, b"<html>no such page</html>", {"Content-Type": "text/html"})
        )
        if found.silent:
            self.waiting.append(request)
            return NOT_DONE_YET
        request.setResponseCode(found.status)
        for name, value in found.headers.items():
            request.setHeader(name, value)
        return b"" if received.method == "HEAD" else found.body


def http(cloud: StubCloud, clock: Clock, **limits: Any) -> HttpClient:
    return HttpClient(StubTreq(cloud), clock, **limits)


async def ask(http: HttpClient, url: str, method: str = "GET") -> HttpResponse:
    return await http.send(HttpRequest(method=method, url=url))


KEYSTONE = "http://127.0.0.1:15000"


def captured_cloud() -> StubCloud:
    """A cloud whose Keystone issues a token and whose services respond with captured responses."""
    cloud = StubCloud()
    cloud.on("POST", "/v3/auth/tokens", captured("keystone-01-auth-tokens-scoped"))
    project = "/v3/28d7e332c3534141a51842ce497e19ac"
    cloud.on("GET", "/v3/projects", captured("keystone-21-projects"))
    cloud.on(
        "GET",
        "/v2/images",
        lambda request: captured("glance-02-images-page2" if "marker" in request.query else "glance-01-images-page1"),
    )
    cloud.on("GET", f"{project}/volumes/detail", captured("cinder-01-volumes-detail-all-tenants"))
    cloud.on("GET", f"{project}/snapshots/detail", captured("cinder-02-snapshots-detail-all-tenants"))
    cloud.on("GET", f"{project}/scheduler-stats/get_pools", captured("cinder-05-scheduler-stats-get-pools-detail-true"))
    cloud.on("GET", f"{project}/os-services", captured("cinder-06-os-services"))
    for part in ("volumes/detail", "snapshots/detail", "scheduler-stats/get_pools", "os-services"):
        cloud._answers["GET", f"/v3/{part}"] = cloud._answers["GET", f"{project}/{part}"]
    cloud.on("GET", "/v2.0/floatingips", captured("neutron-01-floatingips"))
    cloud.on("GET", "/v2.0/networks", captured("neutron-02-networks"))
    cloud.on("GET", "/v2.0/routers", captured("neutron-03-routers"))
    cloud.on("GET", "/v2.1/servers/detail", captured("nova-01-servers-detail-all-2.1"))
    cloud.on("GET", "/v2.1/os-simple-tenant-usage", captured("nova-04-simple-tenant-usage"))
    cloud.on("GET", "/v2.1/os-hypervisors/detail", captured("nova-06-hypervisors-detail-2.88"))
    return cloud


def openstack(
    stub: StubCloud,
    clock: Clock | None = None,
    *,
    limits: ServiceLimits | None = None,
    reactor: Clock | None = None,
    **arguments: Any,
) -> Cloud:
    """A client of ``stub``, without a rate limit unless ``limits`` has one.

    ``reactor`` is the clock that flushes a prefetch request before a page is yielded; without it nothing is awaited.
    """
    clock = clock or Clock()
    client = LimitedHttpClient(
        http(stub, clock), clock, limits=limits or ServiceLimits(requests_per_second=inf, attempts=1)
    )
    credentials = Credentials(auth_url=KEYSTONE, username="meter", password="secret", project_name="service")

    async def send(request: HttpRequest) -> HttpResponse:
        return await client.send("identity", request)

    return Cloud(client, Keystone(send, credentials, clock), clock=reactor, **arguments)
