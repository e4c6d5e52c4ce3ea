"""One tenant cannot take the API from all: shares of requests, of queries and of streams; room for administrators."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred

from meter.api import RequestLimits
from meter.api import SampleIngest
from meter.settings.config_file import parse
from meter.taps.parts.api import shares_warnings
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.test_ingest import APPLE
from tests.unit.api.test_ingest import RecordingBus

CSV = "text/csv"


class QueuedStore(MemoryStore):
    """A store whose queries wait in ``queries``, each with the project that it is for (``None`` for administrators)."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[tuple[str | None, Deferred[Any]]] = []
        self.cancelled = 0

    async def _wait(self, filter: Any) -> Any:
        self.queries.append((filter.equals.get("project_id"), Deferred()))
        try:
            return await self.queries[-1][1]
        except CancelledError:
            self.cancelled += 1
            raise

    async def samples(self, filter: Any, *_: Any) -> Any:
        return await self._wait(filter)

    async def statistics(self, query: Any) -> Any:
        return await self._wait(query.filter)

    async def write(self, messages: Any) -> Any:
        self.queries.append(("written", Deferred()))
        await self.queries[-1][1]
        return await super().write(messages)

    def projects(self) -> list[str | None]:
        return [project for project, query in self.queries if not query.called]

    def answer(self, project: str | None) -> None:
        """Answer the oldest query of ``project``."""
        next(query for of, query in self.queries if of == project and not query.called).callback([])


class SharedApi:
    """An API with tokens of two projects and of an administrator, over a store that answers when the test says so."""

    def __init__(self, **limits: Any) -> None:
        self.store = QueuedStore()
        self._pending: list[Deferred[Any]] = []
        ingest = SampleIngest(KEYS, "openstack", RecordingBus(), self.store)  # type: ignore[arg-type]
        self.api = ApiClient(store=self.store, auth=TOKENS, ingest=ingest, limits=RequestLimits(**limits))

    def ask(
        self, who: str, path: str = "/v2/samples", accept: str = "application/json", body: bytes | None = None
    ) -> list[Response]:
        """Send a request; the list has its response once there is one."""
        responses: list[Any] = []
        headers = {"X-Auth-Token": f"{who}-token", "Accept": accept}
        if body is not None:
            headers["Content-Type"] = "application/json"
        method = "GET" if body is None else "POST"
        pending = self.api.pending(path, method=method, headers=headers, body=body)
        self._pending.append(pending)
        pending.addBoth(responses.append)
        self.api.flush()
        return responses

    def disconnect_all(self) -> None:
        for pending in self._pending:
            pending.cancel()
        self.api.flush()
        self.api.disconnect()

    def answer(self, project: str | None) -> None:
        self.store.answer(project)
        self.api.flush()


@pytest.fixture
def share() -> Iterator[Callable[..., SharedApi]]:
    """Makes an API, whose clients disconnect in the end."""
    made: list[SharedApi] = []

    def make(**limits: Any) -> SharedApi:
        made.append(SharedApi(**limits))
        return made[-1]

    yield make
    for each in made:
        each.disconnect_all()


def test_project_cannot_take_all_places(share: Callable[..., SharedApi]) -> None:
    shared = share(max_requests=10, max_requests_per_project=4, reserved_requests=2)
    hostile = [shared.ask("blue") for _ in range(20)]
    refused = [responses[0] for responses in hostile if responses]
    assert [each.status for each in refused] == [429] * 16
    assert int(refused[0].headers["retry-after"]) > 0
    assert refused[0].faultstring.startswith("One project can have 4 requests in progress at the same time")
    other = shared.ask("green")
    shared.answer("green")
    assert other[0].status == 200


def test_places_are_given_back(share: Callable[..., SharedApi]) -> None:
    shared = share(max_requests_per_project=1)
    first = shared.ask("blue")
    assert shared.ask("blue")[0].status == 429
    shared.answer("blue")
    assert first[0].status == 200
    assert shared.ask("blue") == []


def test_costly_requests_of_a_project_leave_it_places_for_others(share: Callable[..., SharedApi]) -> None:
    shared = share(max_requests_per_project=10, max_costly_per_project=3)
    costly = [
        ("/v2/samples", CSV),
        ("/v2/meters/cpu/statistics", "*/*"),
        ("/v1/projects/blue/meters/cpu/volume/sum", "*/*"),
    ]
    assert [shared.ask("blue", path, accept) for path, accept in costly] == [[], [], []]
    refused = shared.ask("blue", "/v2/samples", CSV)[0]
    assert refused.status == 429
    assert refused.faultstring.startswith("One project can have 3 costly requests (exports, statistics,")
    assert shared.ask("blue") == []
    assert shared.ask("green", "/v2/samples", CSV) == []


def test_administrators_have_places_when_tenants_have_taken_all_others(share: Callable[..., SharedApi]) -> None:
    shared = share(max_requests=5, max_requests_per_project=4, reserved_requests=2)
    for who in ("blue", "blue", "green"):
        assert shared.ask(who) == []
    refused = shared.ask("green")[0]
    assert (refused.status, refused.faultstring) == (
        503,
        "All clients together can have 3 requests in progress at the same time"
        " (2 more are reserved for administrators): try again later.",
    )
    administrator = shared.ask("admin")
    shared.answer(None)
    assert administrator[0].status == 200


def test_client_address_cannot_take_all_places_with_many_projects(share: Callable[..., SharedApi]) -> None:
    shared = share(max_requests_per_address=3)
    assert [shared.ask(who) for who in ("blue", "green", "blue")] == [[], [], []]
    refused = shared.ask("green")[0]
    assert (refused.status, refused.faultstring[:27]) == (429, "One client address can have")
    assert shared.ask("admin") == []


def test_live_streams_have_places_of_their_own(share: Callable[..., SharedApi]) -> None:
    shared = share(max_requests_per_project=1, max_live_per_project=2)
    for _ in range(2):
        assert shared.ask("blue", "/v2/live", "text/event-stream") == []
    refused = shared.ask("blue", "/v2/live", "text/event-stream")
    assert (refused[0].status, refused[0].faultstring[:31]) == (429, "One project can have 2 live str")
    assert shared.ask("blue") == []


def test_request_without_a_valid_token_takes_no_place(share: Callable[..., SharedApi]) -> None:
    shared = share(max_requests=2, max_requests_per_address=1)
    for _ in range(30):
        assert shared.ask("made-up")[0].status == 401
    assert shared.ask("blue") == []


# --- queries -------------------------------------------------------------------------------------------------------


def test_queries_of_a_project_leave_connections_to_others(share: Callable[..., SharedApi]) -> None:
    shared = share(readers=4, max_readers_per_project=2, reserved_readers=1)
    for _ in range(9):
        shared.ask("blue")
    assert shared.store.projects() == ["blue", "blue"]
    other = shared.ask("green")
    assert shared.store.projects() == ["blue", "blue", "green"]
    shared.answer("green")
    assert other[0].status == 200


def test_last_connection_is_for_administrators(share: Callable[..., SharedApi]) -> None:
    shared = share(readers=4, max_readers_per_project=2, reserved_readers=1)
    for who in ("blue", "blue", "green", "green", "green", "admin"):
        shared.ask(who)
    assert shared.store.projects() == ["blue", "blue", "green", None]


def test_connection_that_becomes_free_goes_to_the_next_project_in_rotation(share: Callable[..., SharedApi]) -> None:
    shared = share(readers=2, max_readers_per_project=1, reserved_readers=1)
    for who in ("blue", "blue", "blue", "green", "green"):
        shared.ask(who)
    order = []
    for _ in range(5):
        order += shared.store.projects()
        shared.answer(order[-1])
    assert order == ["blue", "blue", "green", "blue", "green"]


@pytest.mark.parametrize("path", ["/v2/meters/cpu/statistics", "/v1/projects/blue/meters/cpu/duration"])
def test_costly_queries_leave_a_connection_to_cheap_ones(share: Callable[..., SharedApi], path: str) -> None:
    shared = share(readers=4, max_readers_per_project=2, reserved_readers=1)
    for who in ("blue", "blue", "green", "green"):
        shared.ask(who, path.replace("blue", who))
    assert shared.store.projects() == ["blue", "green"]
    shared.ask("blue")
    assert shared.store.projects() == ["blue", "green", "blue"]


def test_query_waits_a_limited_time_for_its_share(share: Callable[..., SharedApi]) -> None:
    shared = share(readers=4, max_readers_per_project=1, max_wait_seconds=10.0)
    shared.ask("blue")
    waiting = shared.ask("blue")
    shared.api.clock.advance(11)
    shared.api.flush()
    assert (waiting[0].status, waiting[0].faultstring) == (
        503,
        "The query has waited 10 s for connections of the store readers;"
        " one project can use 1 of them at the same time, all together 3: try again later.",
    )
    assert shared.store.projects() == ["blue"]


def test_costly_query_waits_no_longer_than_others_although_it_waits_twice(share: Callable[..., SharedApi]) -> None:
    shared = share(readers=4, max_readers_per_project=2, reserved_readers=1, max_wait_seconds=10.0)
    statistics = "/v2/meters/cpu/statistics"
    assert shared.ask("blue", statistics) == []
    waiting = shared.ask("blue", statistics)  # for the first one
    shared.api.clock.advance(6)
    cheap = [shared.ask("blue"), shared.ask("blue")]
    shared.answer("blue")  # now the second cheap query has its connection
    shared.api.clock.advance(3)
    shared.api.flush()
    assert (waiting, cheap) == ([], [[], []])
    shared.api.clock.advance(1)
    shared.api.flush()
    assert (waiting[0].status, "has waited 10 s" in waiting[0].faultstring) == (503, True)
    assert shared.store.projects() == ["blue", "blue"]


def test_costly_queries_of_tenants_take_their_only_connection_if_two_are_too_few(
    share: Callable[..., SharedApi],
) -> None:
    shared = share(readers=2, reserved_readers=1)
    for who, path in (("blue", "/v2/meters/cpu/statistics"), ("green", "/v2/samples"), ("admin", "/v2/samples")):
        shared.ask(who, path)
    assert shared.store.projects() == ["blue", None]


@pytest.mark.parametrize(
    ("readers", "reserved", "mode", "warned"),
    [
        *[(n, 1, "tokens", n < 3) for n in (1, 2, 3, 4)],
        (4, 3, "tokens", True),
        (4, 9, "tokens", True),
        (2, 1, "none", False),
    ],
)
def test_operator_is_warned_of_too_few_readers(readers: int, reserved: int, mode: str, warned: bool) -> None:
    config = parse(
        f"[store]\nreaders = {readers}\n[api.shares]\nreserved_readers = {reserved}\n[api.auth]\nmode = '{mode}'",
        "meter-api",
    )
    assert [f"; {reserved + 2} readers prevent that" in text for text in shares_warnings(config)] == [True] * warned


def test_client_that_disconnects_gives_its_place_in_the_queue_back(share: Callable[..., SharedApi]) -> None:
    shared = share(readers=4, max_readers_per_project=1)
    shared.ask("blue")
    headers = {"X-Auth-Token": "blue-token"}
    leaving = shared.api.pending("/v2/samples", headers=headers)
    shared.api.flush()
    leaving.addErrback(lambda _: None)
    leaving.cancel()
    shared.api.flush()
    last = shared.ask("blue")
    shared.answer("blue")
    shared.answer("blue")
    assert last[0].status == 200
    assert shared.store.projects() == []


def test_direct_writes_of_a_project_take_turns(share: Callable[..., SharedApi]) -> None:
    shared = share(readers=4, max_readers_per_project=2)
    apples = [{**APPLE, "counter_name": "custom.apples", "resource_id": f"tree-{n}"} for n in range(3)]
    for apple in apples:
        shared.ask("blue", "/v2/meters/custom.apples?direct=True", body=msgspec.json.encode([apple]))
    assert shared.store.projects() == ["written"]
    shared.ask("green")
    assert shared.store.projects() == ["written", "green"]
