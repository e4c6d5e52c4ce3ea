"""The page of the pipeline: what administrators and tenants see of agents, daemons, queues and the lag."""

from __future__ import annotations

import html
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api import Requester
from meter.api.web.daemon_rows import daemon_summary
from meter.api.web.formats import lag
from meter.api.web.formats import readable_size
from meter.completeness_store import ReceivedHeartbeat
from meter.completeness_store import StoredHeartbeat
from meter.heartbeat import DependencyState
from meter.heartbeat import Heartbeat
from meter.heartbeat import SpoolState
from tests.api_client import RECORDED
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.dead_letter_queue import MemoryDeadLetters


class FixedAuth:
    def __init__(self, requester: Requester) -> None:
        self._requester = requester

    async def requester(self, request: Any) -> Requester:
        return self._requester


ADMIN, BLUE = Requester(is_admin=True), Requester(is_admin=False, project_id="blue")


def client_of(requester: Requester, **collaborators: Any) -> ApiClient:
    return ApiClient(auth=FixedAuth(requester), **collaborators)


def text_of(response: Response) -> str:
    return html.unescape(response.body.decode())


def heartbeat(host: str, **changes: Any) -> Heartbeat:
    given: dict[str, Any] = {"daemon": "meter-compute", "version": "1.0", "boot": str(uuid.uuid4()), "sequence": 1}
    given |= {"key_ids": (("default", "aabb"),), "started_at": "", "clock": "", "name": f"meter-compute@{host}"}
    return Heartbeat(host=host, **{**given, **changes})


def record(client: ApiClient, *beats: Heartbeat, ahead: float = 0) -> None:
    clock = datetime.fromtimestamp(client.clock.seconds(), UTC) + timedelta(seconds=ahead)
    received = [ReceivedHeartbeat(each, uuid.UUID(each.boot), clock) for each in beats]
    Deferred.fromCoroutine(client.store.record_heartbeats(received))


def stored(beat: Heartbeat, *, ago: float = 0, ahead: float = 0) -> StoredHeartbeat:
    received_at = RECORDED - timedelta(seconds=ago)
    return StoredHeartbeat(beat, received_at + timedelta(seconds=ahead), received_at)


def test_empty_store_says_what_is_missing_and_what_to_do() -> None:
    client = client_of(ADMIN)
    client.store._rows.clear()
    page = text_of(client("/pipeline"))
    assert "No agent has sent a cycle report." in page
    assert "No heartbeat is stored." in page
    assert "No sample was stored in the last hour." in page
    assert "This server knows no message bus" in page
    assert "Nothing was expected in the last 24 hours" in page


def test_daemons_are_shown_with_what_is_wrong_and_hostile_texts_are_escaped() -> None:
    client = client_of(ADMIN)
    spool = SpoolState(messages=7, bytes=900, max_bytes=1000, oldest_seconds=3600, free_bytes=1)
    record(
        client,
        heartbeat("<script>alert(1)</script>", version="2.0", spool=spool, last_error='"><img src=x onerror=1>'),
        heartbeat("\u202eetib", dependencies=(DependencyState("bus", False, "connection refused"),)),
        ahead=90,
    )
    response = client("/pipeline")
    assert response.status == 200
    raw, page = response.body.decode(), text_of(response)
    assert "<script>alert" not in raw
    assert "<img" not in raw
    for expected in ("bus is not ready: connection refused", "its spool fills", "its spool has old messages"):
        assert expected in page
    assert "the disk of its spool is nearly full" in page
    assert "1 min 30 s" in page
    assert "Versions differ:" in page
    assert "900 B of 1\u202f000 B" in page


def test_silent_and_stopped_daemons_are_told_apart_and_old_ones_left_out() -> None:
    found = daemon_summary(
        [
            stored(heartbeat("a")),
            stored(heartbeat("b"), ago=600),
            stored(heartbeat("c", stopping=True), ago=600),
            stored(heartbeat("d"), ago=8 * 86400),
            stored(heartbeat("e"), ahead=-30),
        ],
        RECORDED,
    )
    assert [(row.stored.heartbeat.host, row.state) for row in found.rows] == [
        ("b", "silent"),
        ("e", "running"),
        ("c", "stopped"),
        ("a", "running"),
    ]
    assert found.states == {"running": 2, "silent": 1, "stopped": 1}
    assert [row.stored.heartbeat.host for row in found.skewed] == ["e"]
    assert found.keys == {("default", "aabb"): 2}
    assert found.with_problems == 2


def test_many_daemons_are_paged_those_with_problems_first() -> None:
    client = client_of(ADMIN)
    record(client, *(heartbeat(f"host-{n:04d}") for n in range(250)))
    record(client, heartbeat("zz", dependencies=(DependencyState("store", False, "away"),)))
    page = text_of(client("/pipeline"))
    assert "meter-compute@zz" in page
    assert "meter-compute@host-0098" in page
    assert "meter-compute@host-0099" not in page
    assert 'href="?daemons_from=100#daemons"' in page
    assert "meter-compute@host-0249" in text_of(client("/pipeline?daemons_from=200"))


def test_queues_are_shown_with_their_state() -> None:
    clock, queue = Clock(), MemoryDeadLetters()
    queue.add(1)
    client = client_of(ADMIN, clock=clock, bus=queue.services(clock))
    page = text_of(client("/pipeline"))
    assert "RabbitMQ 3.10.8 at broker:5672" in page
    assert "consumed" in page
    assert "does not exist" in page
    assert "Dead letters by kind and reason" in page


def test_broker_that_is_away_takes_only_its_part_away() -> None:
    clock, queue = Clock(), MemoryDeadLetters()
    queue.away = "broker:5672: connection refused"
    client = client_of(ADMIN, clock=clock, bus=queue.services(clock))
    response = client("/pipeline")
    assert response.status == 200
    assert "The message bus is unavailable: broker:5672: connection refused" in text_of(response)
    assert "Lag from measurement to row" in text_of(response)


def test_state_of_the_bus_is_looked_up_once_for_many_pages() -> None:
    clock, queue = Clock(), MemoryDeadLetters()
    services = queue.services(clock)
    looks: list[int] = []
    look = services._look

    async def counted() -> Any:
        looks.append(1)
        return await look()

    services._look = counted  # type: ignore[method-assign]
    client = client_of(ADMIN, clock=clock, bus=services)
    client("/pipeline")
    client("/pipeline")
    client("/")
    assert len(looks) == 1
    clock.advance(5)
    client("/pipeline")
    assert len(looks) == 2


def test_lag_is_that_of_the_visible_samples() -> None:
    page = text_of(client_of(ADMIN)("/pipeline"))
    assert "of 4 samples stored since" in page
    assert "10 min" in page  # stored ten minutes after noon
    tenant = text_of(client_of(BLUE)("/pipeline"))
    assert "of 2 samples stored since" in tenant


def test_tenant_sees_nothing_of_agents_queues_and_others() -> None:
    clock, queue = Clock(), MemoryDeadLetters()
    client = client_of(BLUE, clock=clock, bus=queue.services(clock))
    record(client, heartbeat("secret-host"))
    page = text_of(client("/pipeline"))
    assert "Completeness, last 24 hours" in page
    for hidden in ("secret-host", "metering.dead", "RabbitMQ", "Heartbeat"):
        assert hidden not in page


def test_requester_without_a_project_is_refused() -> None:
    assert client_of(Requester(is_admin=False))("/pipeline").status == 403


def test_store_that_is_away_is_a_page_that_says_so() -> None:
    client = client_of(ADMIN)
    client.store.unavailable = "the database is away"
    response = client("/pipeline")
    assert response.status == 503
    assert response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("query", ["?agents_from=x", "?daemons_from=-1", "?other=1"])
def test_wrong_parameters_give_a_page_with_status_400(query: str) -> None:
    assert client_of(ADMIN)(f"/pipeline{query}").status == 400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (-0.04, "0.0 s"),
        (0.26, "0.3 s"),
        (-1.5, "−1.5 s"),
        (12.4, "12 s"),
        (3700, "1 h 1 min"),
    ],
)
def test_lags_have_tenths_if_they_are_short(seconds: float | None, text: str) -> None:
    assert lag(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "–"), (0, "0 B"), (1000, "1\u202f000 B"), (1536, "1.5 KiB"), (2**30, "1 GiB"), (2**51, "2\u202f048 TiB")],
)
def test_sizes_have_the_largest_unit(size: float | None, text: str) -> None:
    assert readable_size(size) == text
