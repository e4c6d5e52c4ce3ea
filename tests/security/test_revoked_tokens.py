"""A revoked, expired or changed token ends what it began: live streams, exports and long queries."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.server import Site

from meter.api import Api
from meter.api import KeystoneTokens
from meter.api import Requester
from meter.api.auth.authorization import AuthorizationEnded
from meter.api.auth.visibility import VisibleStore
from meter.api.errors import ApiError
from meter.api.handlers import v2 as handlers
from meter.api.streaming import export as export_module
from meter.interfaces import Unavailable
from meter.testing import MemoryStore
from tests.api_client import RECORDED
from tests.api_client import message
from tests.unit.api.streaming.test_export import Transport

REVALIDATE_SECONDS = 60
MAX_LIMITED_SECONDS = 30
MAX_UNCHECKED_SECONDS = 300


class KeystoneToken:
    """What a validation returns."""

    def __init__(self, *roles: str, project_id: str = "blue", minutes: float = 600) -> None:
        self.project_id = project_id
        self.user_name = self.project_name = ""
        self.user_id = "ann"
        self.roles = roles
        self.domain_id = None
        self.system = False
        self.expires_at = RECORDED + timedelta(minutes=minutes)


class SlowStore(MemoryStore):
    """A store whose queries wait for ``gate``, if there is one."""

    gate: Deferred[None] | None = None

    async def samples(self, *arguments: Any) -> Any:
        return await self._after_gate(super().samples(*arguments))

    async def statistics(self, *arguments: Any) -> Any:
        return await self._after_gate(super().statistics(*arguments))

    async def _after_gate(self, query: Any) -> Any:
        if self.gate is not None:
            await self.gate
        return await query


class Service:
    """An API that validates tokens at a fake Keystone: ``token`` is the only valid one; ``failure`` replaces its answer."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(RECORDED.timestamp())
        self.store = SlowStore(self.clock)
        self.token: KeystoneToken | None = KeystoneToken("member")
        self.failure: Exception | None = None
        self.validations = 0
        auth = KeystoneTokens(
            self.validate, self.clock, uri="https://keystone.example.org", revalidate_seconds=REVALIDATE_SECONDS
        )
        self.site = Site(Api(self.store, self.clock, auth=auth).resource(), reactor=self.clock)

    async def validate(self, token: str) -> KeystoneToken | None:
        self.validations += 1
        if self.failure is not None:
            raise self.failure
        return self.token

    def write(self, *messages: Any) -> None:
        Deferred.fromCoroutine(self.store.write(messages))

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps, as timers of timers need."""
        for _ in range(round(seconds)):
            self.clock.advance(1)

    def open(self, path: str, **headers: str) -> Connection:
        return Connection(self, path, headers)


class Connection:
    """The server side of a client's connection."""

    def __init__(self, service: Service, path: str, headers: dict[str, str]) -> None:
        self.transport = Transport(service.clock)
        self.channel: Any = service.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)
        self.transport.channel = self.channel
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.channel.dataReceived(f"GET {path} HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: t\r\n{lines}\r\n".encode())

    @property
    def received(self) -> bytes:
        return self.transport.value()

    @property
    def complete(self) -> bool:
        """Whether the chunked body has its end."""
        return self.received.endswith(b"0\r\n\r\n")

    @property
    def end(self) -> Any:
        """The data of the last event, ``None`` while the stream goes on."""
        _, found, data = self.received.partition(b"event: end\ndata: ")
        return msgspec.json.decode(data.partition(b"\n")[0]) if found else None

    def disconnect(self) -> None:
        self.channel.connectionLost(Failure(ConnectionError()))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def logged() -> Iterator[Callable[[str], int]]:
    """Returns how many log events have a text in their format and reason."""
    texts: list[str] = []

    def observe(event: Any) -> None:
        texts.append(f"{event.get('log_format')} {event.get('error')}")

    globalLogPublisher.addObserver(observe)
    yield lambda text: sum(text in each for each in texts)
    globalLogPublisher.removeObserver(observe)


# --- live streams --------------------------------------------------------------------------------------------------


def test_live_stream_of_a_revoked_token_sends_no_sample_and_ends_with_an_event(
    service: Service, logged: Callable[[str], int]
) -> None:
    client = service.open("/v2/live")
    service.write(message(message_id="before"))
    service.token = None
    service.advance(REVALIDATE_SECONDS)
    service.write(message(message_id="after"))
    service.advance(2)
    assert b"before" in client.received
    assert b"after" not in client.received
    assert client.end["status"] == 401
    assert client.complete
    assert service.store.subscribers == 0
    assert logged("not valid any more") == 1


def test_idle_live_stream_of_a_revoked_token_ends_too(service: Service) -> None:
    client = service.open("/v2/live")
    service.token = None
    service.advance(REVALIDATE_SECONDS + 2)
    assert client.end["status"] == 401
    assert client.complete


def test_live_stream_of_a_valid_token_goes_on_and_is_validated_as_often_as_requests(service: Service) -> None:
    client = service.open("/v2/live")
    for n in range(200):
        service.advance(1)
        service.write(message(message_id=f"n{n}"))
    assert b'"n199"' in client.received
    assert client.end is None
    assert 3 <= service.validations <= 200 / REVALIDATE_SECONDS + 1
    client.disconnect()


def test_live_stream_ends_when_its_token_expires_even_without_keystone(service: Service) -> None:
    service.token = KeystoneToken("member", minutes=2)
    client = service.open("/v2/live")
    service.advance(30)
    service.failure = Unavailable("no answer")
    service.advance(85)
    assert client.end is None
    service.advance(6)
    assert client.end == {"status": 401, "reason": "The token has expired."}


@pytest.mark.parametrize("changed", [KeystoneToken("admin"), KeystoneToken("member", project_id="red")])
def test_live_stream_ends_when_project_or_roles_of_its_token_change(service: Service, changed: KeystoneToken) -> None:
    client = service.open("/v2/live")
    service.token = changed
    service.advance(REVALIDATE_SECONDS + 1)
    service.write(message(message_id="secret", project_id="red"))
    service.advance(1)
    assert b"secret" not in client.received
    assert client.end["status"] == 401
    assert "have changed" in client.end["reason"]


def test_stream_of_a_member_whose_admin_role_was_removed_ends(service: Service) -> None:
    service.token = KeystoneToken("admin", "member")
    client = service.open("/v2/live")
    service.token = KeystoneToken("member")
    service.advance(REVALIDATE_SECONDS + 1)
    service.write(message(message_id="secret", project_id="red"))
    service.advance(1)
    assert b"secret" not in client.received
    assert client.end["status"] == 401


def test_outage_of_keystone_is_no_refusal(service: Service) -> None:
    client = service.open("/v2/live")
    service.failure = Unavailable("no answer")
    service.advance(REVALIDATE_SECONDS + 120)
    service.write(message(message_id="during"))
    service.failure = None
    service.advance(MAX_UNCHECKED_SECONDS)
    service.write(message(message_id="later"))
    service.advance(1)
    assert client.end is None
    assert b"during" in client.received
    assert b"later" in client.received
    client.disconnect()


def test_stream_whose_token_cannot_be_checked_for_too_long_ends_with_503(service: Service) -> None:
    client = service.open("/v2/live")
    service.failure = Unavailable("no answer")
    service.advance(REVALIDATE_SECONDS + MAX_UNCHECKED_SECONDS + 5)
    assert client.end["status"] == 503
    assert client.complete
    asked = service.validations
    assert asked <= 2 + MAX_UNCHECKED_SECONDS / 5


def test_client_that_exhausts_the_checks_of_its_address_does_not_prolong_its_stream(service: Service) -> None:
    client = service.open("/v2/live")
    service.failure = ApiError(429, "Too many tokens were refused.")
    service.advance(REVALIDATE_SECONDS + MAX_LIMITED_SECONDS)
    assert client.end is None
    service.advance(3)
    assert client.end["status"] == 503
    assert service.validations <= MAX_LIMITED_SECONDS + 5


def test_limit_that_is_over_soon_ends_no_stream(service: Service) -> None:
    client = service.open("/v2/live")
    service.failure = ApiError(429, "Too many tokens were refused.")
    service.advance(REVALIDATE_SECONDS + MAX_LIMITED_SECONDS - 10)
    service.failure = None
    service.advance(MAX_LIMITED_SECONDS * 10)
    assert client.end is None
    client.disconnect()


# --- exports and long queries --------------------------------------------------------------------------------------


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    """An export of ten pages."""
    for module in (export_module, handlers):
        monkeypatch.setattr(module, "PAGE_SAMPLES", 10)
    service.write(*(message(n / 10, message_id=f"n{n:03}") for n in range(100)))


@pytest.mark.usefixtures("pages")
def test_export_of_a_revoked_token_is_aborted(service: Service, logged: Callable[[str], int]) -> None:
    service.store.gate = Deferred()
    client = service.open("/v2/samples", Accept="application/x-ndjson")
    gate, service.store.gate = service.store.gate, Deferred()
    gate.callback(None)  # the first page arrives, the second is queried
    service.token = None
    service.advance(REVALIDATE_SECONDS + 1)
    gate, service.store.gate = service.store.gate, None
    gate.callback(None)
    service.advance(1)
    assert b"n099" in client.received
    assert b"n089" not in client.received
    assert not client.complete
    assert client.transport.disconnected
    assert logged("not valid any more") == 1


@pytest.mark.usefixtures("pages")
def test_page_that_waits_for_a_slow_client_is_not_sent_after_the_revocation(service: Service) -> None:
    service.store.gate = Deferred()
    client = service.open("/v2/samples", Accept="text/csv")
    gate, service.store.gate = service.store.gate, Deferred()
    gate.callback(None)  # the first page arrives, the second is queried
    service.token = None
    service.advance(REVALIDATE_SECONDS / 2)
    client.transport.producer.pauseProducing()
    gate, service.store.gate = service.store.gate, None
    gate.callback(None)  # the second is written, the third is ready
    service.advance(REVALIDATE_SECONDS / 2 + 1)
    client.transport.producer.resumeProducing()
    service.advance(1)
    assert b"n089" in client.received
    assert b"n079" not in client.received
    assert client.transport.disconnected


def test_result_of_a_query_is_not_sent_if_the_token_was_revoked_meanwhile(service: Service) -> None:
    service.write(message(message_id="a"))
    service.store.gate = Deferred()
    client = service.open("/v2/meters/cpu/statistics")
    service.token = None
    service.advance(REVALIDATE_SECONDS + 1)
    service.store.gate.callback(None)
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401")
    assert b"WWW-Authenticate: Keystone" in head
    assert msgspec.json.decode(body)["error"]["code"] == 401


def test_result_of_a_query_is_sent_if_keystone_is_away_meanwhile(service: Service) -> None:
    service.write(message(message_id="a"))
    service.store.gate = Deferred()
    client = service.open("/v2/meters/cpu/statistics")
    service.failure = Unavailable("no answer")
    service.advance(REVALIDATE_SECONDS + 1)
    service.store.gate.callback(None)
    assert client.received.startswith(b"HTTP/1.1 200")


FOR_ADMINISTRATORS = (
    "agent_states",
    "audit_entries",
    "audited_periods",
    "book_differences",
    "heartbeats",
    "hours_not_final",
    "unmetered",
    "unpriced_usage",
)

QUERIES = [
    name
    for name, method in inspect.getmembers(VisibleStore, inspect.iscoroutinefunction)
    if not name.startswith("_") and name != "check_authorization"
]


@pytest.mark.parametrize("name", QUERIES)
def test_no_query_reaches_the_store_without_authorization(name: str) -> None:
    async def refuse() -> None:
        raise AuthorizationEnded(401, "revoked")

    requester = Requester(is_admin=name in FOR_ADMINISTRATORS, project_id="blue")
    untouched: Any = None  # using it would raise another exception
    query = getattr(VisibleStore(untouched, requester, authorize=refuse), name)
    arguments = [None for each in inspect.signature(query).parameters.values() if each.default is each.empty]
    failures: list[Failure] = []
    Deferred.fromCoroutine(query(*arguments)).addErrback(failures.append)
    assert [failure.type for failure in failures] == [AuthorizationEnded]
