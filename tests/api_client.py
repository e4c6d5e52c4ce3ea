"""A client of an API over an in-memory store with a few samples, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import msgspec
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from meter.api import Api
from meter.api import HostPolicy
from meter.message import MeteringMessage
from meter.sample import Sample
from meter.signing_keys import keyring
from meter.testing import MemoryStore
from tests.signed import received

KEYS = keyring(["secret"])
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
RECORDED = NOON + timedelta(minutes=10)


def message(minute: float = 0, **changes: Any) -> MeteringMessage:
    """Return a signed message of the meter ``cpu``, with a timestamp ``minute`` minutes after noon."""
    fields: dict[str, Any] = {
        "name": "cpu",
        "type": "cumulative",
        "unit": "ns",
        "volume": 1,
        "resource_id": "vm-1",
        "project_id": "blue",
        "user_id": "ann",
        "timestamp": NOON + timedelta(minutes=minute),
    }
    return received(Sample(**{**fields, **changes}), KEYS, "test")


SAMPLES = (
    message(0, message_id="s0", volume=10, resource_metadata={"size": 0, "flavor": {"name": "m1"}}),
    message(1, message_id="s1", volume=20, resource_metadata={"size": "0", "on": True}),
    message(2, message_id="s2", volume=60, resource_id="a/b c", project_id="red", user_id="bob"),
    message(3, message_id="s3", name="disk.size", type="gauge", unit="GB", volume=2.5, project_id=None, user_id=None),
)
"""Three samples of ``cpu`` from two resources of two projects, and one of ``disk.size`` without project and user."""


def term(field: str, value: str, op: str | None = None, kind: str | None = None, n: int | None = None) -> str:
    """Return one term of ``q`` for a query string, in the parallel form, or with ``n`` in the indexed form."""
    prefix = "q" if n is None else f"q[{n}]"
    members = {"field": field, "op": op, "value": value, "type": kind}
    return "&".join(f"{prefix}.{name}={quote(text)}" for name, text in members.items() if text is not None)


@dataclass(frozen=True, slots=True)
class Response:
    """A response: status, headers with lower-case names, body as bytes, and its headers ``Set-Cookie``."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    @property
    def faultstring(self) -> str:
        """The text of an error in WSME's shape."""
        text = self.json["error_message"]["faultstring"]
        assert isinstance(text, str)
        return text


class ApiClient:
    """Calls an API whose store has :data:`SAMPLES` and whose ``clock``, a new one by default, stands at ten past noon."""

    def __init__(self, **collaborators: Any) -> None:
        self.clock = collaborators.pop("clock", None) or Clock()
        self.clock.advance(RECORDED.timestamp())
        self.store = MemoryStore(self.clock)
        Deferred.fromCoroutine(self.store.write(SAMPLES))
        collaborators.setdefault("hosts", HostPolicy(["cloud", "localhost"]))
        self._treq = StubTreq(Api(collaborators.pop("store", self.store), self.clock, **collaborators).resource())

    def post(self, path: str, content: Any, **headers: str) -> Response:
        """Return the response to a POST of ``content`` as JSON, which must be available at once."""
        body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        return self(path, method="POST", body=body, headers={"Content-Type": "application/json", **headers})

    def pending(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Deferred[Response]:
        """Send a request and return its pending response; ``path`` is sent unchanged."""
        return Deferred.fromCoroutine(self._request(path, method, {"Host": "cloud:8777", **(headers or {})}, body))

    async def _request(self, path: str, method: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        response = await self._treq.request(
            method, f"http://cloud:8777{path}", headers=dict(headers), data=body, allow_redirects=False
        )
        names = {name.decode().lower(): values[0].decode() for name, values in response.headers.getAllRawHeaders()}
        cookies = tuple(response.headers.getRawHeaders("set-cookie", ()))
        return Response(response.code, names, await response.content(), cookies)

    def flush(self) -> None:
        """Transfer the data sent so far to the other side."""
        self._treq.flush()

    def disconnect(self) -> None:
        """Let all connections end that are still open: a stream goes on as long as its client is there."""
        agent: Any = self._treq.flush.__self__
        for pump in agent._pumps:
            pump.server.connectionLost(Failure(ConnectionDone()))

    def __call__(self, path: str, **request: Any) -> Response:
        """Return the response to a request, which must be available at once."""
        responses: list[Any] = []
        self.pending(path, **request).addBoth(responses.append)
        self.flush()
        (response,) = responses
        assert isinstance(response, Response), response
        return response
