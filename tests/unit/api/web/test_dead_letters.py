"""The pages of dead letters: what they show, whom, and what a replay does."""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import urlencode

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api import Requester
from meter.api.bus_services import MAX_READ_LETTERS
from meter.api.web.dead_letters import FIRST_READ
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.dead_letter_queue import MemoryDeadLetters

PATH = "/pipeline/dead-letters"
SENT_BY_PAGE = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}


class FixedAuth:
    def __init__(self, requester: Requester) -> None:
        self._requester = requester

    async def requester(self, request: Any) -> Requester:
        return self._requester


@pytest.fixture
def queue() -> MemoryDeadLetters:
    return MemoryDeadLetters()


@pytest.fixture
def client(queue: MemoryDeadLetters) -> ApiClient:
    clock = Clock()
    auth = FixedAuth(Requester(is_admin=True, user_id="root"))
    return ApiClient(clock=clock, auth=auth, bus=queue.services(clock, max_dead_letters=5000))


def replay(client: ApiClient, *, headers: Any = SENT_BY_PAGE, **fields: Any) -> Response:
    return client(f"{PATH}/replay", method="POST", headers=headers, body=urlencode(fields, doseq=True).encode())


def text_of(response: Response) -> str:
    return html.unescape(response.body.decode())


def test_empty_queue_is_said_to_be_empty(client: ApiClient) -> None:
    response = client(PATH)
    assert response.status == 200
    assert "There are no dead letters." in text_of(response)


def test_list_has_kinds_with_commonest_reason_and_each_letter(client: ApiClient, queue: MemoryDeadLetters) -> None:
    for number in range(3):
        queue.add(number, meter="cpu")
    queue.add(3, reason="other")
    queue.add(4, kind="unverified", reason="unknown key", masked=True)
    page = text_of(client(PATH))
    assert "no volume" in page
    assert "(3 of 4)" in page
    assert "Replay all invalid" in page
    assert "Replay all unverified" not in page  # masked: a replay cannot succeed
    assert f'href="{PATH}/00000003-0000-4000-8000-000000000000"' in page
    assert "signing keys" in page  # the advice of the kind
    assert queue.closed == queue.opened == 1


def test_letters_of_one_kind_are_listed_alone(client: ApiClient, queue: MemoryDeadLetters) -> None:
    queue.add(1)
    queue.add(2, kind="conflict")
    page = text_of(client(f"{PATH}?kind=conflict"))
    assert f"{PATH}/00000002" in page
    assert f"{PATH}/00000001" not in page


def test_huge_queue_is_read_in_part_and_paged(client: ApiClient, queue: MemoryDeadLetters) -> None:
    for number in range(MAX_READ_LETTERS + 500):
        queue.add(number)
    page = text_of(client(PATH))
    assert queue.read == FIRST_READ
    assert "1 to 100; pages show the oldest 1\u202f000" in page
    assert f'href="{PATH}?marker=100"' in page
    last = text_of(client(f"{PATH}?marker=900"))
    assert f"{PATH}/00000999" in last
    assert "Next page" not in last
    assert len(queue.messages) == MAX_READ_LETTERS + 500


@pytest.mark.parametrize("query", ["?kind=nonsense", "?marker=x", "?marker=2000", "?kind=", "?page=2"])
def test_wrong_parameters_give_a_page_with_status_400(client: ApiClient, query: str) -> None:
    response = client(PATH + query)
    assert response.status == 400
    assert response.headers["content-type"].startswith("text/html")


def test_letter_is_shown_escaped_masked_and_cut(client: ApiClient, queue: MemoryDeadLetters) -> None:
    body = b'{"password": "hunter2", "name": "<script>alert(1)</script>", "long": "%s"}' % (b"x" * 100_000)
    id = queue.add(1, body=body, reason='"><img src=x>', meter="\u202egnp.exe", **{"x-token": "gAAAAA" + "b" * 40})
    response = client(f"{PATH}/{id}")
    page = response.body.decode()
    assert response.status == 200
    assert "hunter2" not in page
    assert "b" * 40 not in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "<img" not in page
    assert "more characters" in page
    assert len(page) < 120_000


def test_body_that_is_no_text_is_shown_with_escapes(client: ApiClient, queue: MemoryDeadLetters) -> None:
    id = queue.add(1, body=b"\xff\x00\x1b[31m\xe2\x80\xae")
    page = client(f"{PATH}/{id}").body.decode()
    assert r"\xff\x00\x1b[31m\u202e" in page


def test_letter_that_is_gone_is_404_and_says_why(client: ApiClient, queue: MemoryDeadLetters) -> None:
    response = client(f"{PATH}/11111111-0000-4000-8000-000000000000")
    assert response.status == 404
    assert "replayed or discarded in the meantime" in text_of(response)
    assert client(f"{PATH}/123").status == 404


def test_replay_sends_back_records_first_and_removes(client: ApiClient, queue: MemoryDeadLetters) -> None:
    first, second = queue.add(1, body=b"one"), queue.add(2, body=b"two")
    response = replay(client, id=second, reason="fixed the key")
    assert response.status == 200
    assert "1 replayed, 0 kept" in text_of(response)
    assert [(each.routing_key, each.body) for each in queue.sent] == [("meter.metering", b"two")]
    assert [headers["meter-id"] for headers, _ in queue.messages] == [first]
    [(who, reason, action, details)] = queue.recorded
    assert (who, reason, action) == ("root", "fixed the key", "dead-letter.replay")
    assert [each["id"] for each in details["dead_letters"]] == [second]


def test_second_replay_of_a_letter_is_404_and_changes_nothing(client: ApiClient, queue: MemoryDeadLetters) -> None:
    id = queue.add(1)
    assert replay(client, id=id).status == 200
    assert replay(client, id=id).status == 404
    assert len(queue.sent) == 1


def test_replay_of_a_kind_leaves_other_kinds_and_what_cannot_succeed(
    client: ApiClient, queue: MemoryDeadLetters
) -> None:
    for number in range(150):
        queue.add(number)
    masked, other = queue.add(200, masked=True), queue.add(201, kind="conflict")
    page = text_of(replay(client, kind="invalid"))
    assert "150 replayed, 1 kept" in page
    assert "The first 100 of 151 are shown." in page
    assert [headers["meter-id"] for headers, _ in queue.messages] == [masked, other]
    assert [len(details["dead_letters"]) for *_, details in queue.recorded] == [100, 50]


def test_masked_letter_is_replayed_only_if_that_is_asked_for(client: ApiClient, queue: MemoryDeadLetters) -> None:
    id = queue.add(1, masked=True)
    assert "kept:" in text_of(replay(client, id=id))
    assert queue.sent == []
    assert "1 replayed" in text_of(replay(client, id=id, force="1"))


def test_nothing_is_replayed_that_cannot_be_recorded(client: ApiClient, queue: MemoryDeadLetters) -> None:
    id = queue.add(1)
    queue.log_away = "nothing was done, as the audit log cannot be written: database away"
    response = replay(client, id=id)
    assert response.status == 503
    assert "the audit log cannot be written" in text_of(response)
    assert queue.sent == []
    assert len(queue.messages) == 1


def test_broker_that_goes_away_in_the_middle_keeps_the_rest(client: ApiClient, queue: MemoryDeadLetters) -> None:
    for number in range(5):
        queue.add(number)
    queue.send_away, queue.max_sent = "broker: connection lost", 2
    page = text_of(replay(client, kind="invalid"))
    assert "2 replayed, 0 kept" in page
    assert "The replay ended early: broker: connection lost" in page
    assert len(queue.messages) == 3


def test_broker_that_is_away_is_a_page_that_says_so(client: ApiClient, queue: MemoryDeadLetters) -> None:
    queue.away = "broker:5672: connection refused"
    response = client(PATH)
    assert response.status == 503
    assert "connection refused" in text_of(response)


def test_huge_queue_is_replayed_in_parts(client: ApiClient, queue: MemoryDeadLetters) -> None:
    for number in range(MAX_READ_LETTERS + 3):
        queue.add(number)
    assert "3 newer dead letters were not looked at" in text_of(replay(client, kind="invalid"))
    assert len(queue.messages) == 3


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}])
def test_form_of_another_site_is_refused(client: ApiClient, queue: MemoryDeadLetters, headers: Any) -> None:
    queue.add(1)
    form_type = {"Content-Type": "application/x-www-form-urlencoded"}
    assert replay(client, headers={**headers, **form_type}, kind="invalid").status == 403
    assert queue.sent == []


@pytest.mark.parametrize("fields", [{}, {"kind": "nonsense"}, {"id": "x" * 36, "kind": "invalid"}])
def test_replay_needs_ids_or_a_kind(client: ApiClient, fields: Any) -> None:
    assert replay(client, **fields).status == 400
    assert replay(client, kind="invalid", reason="x" * 1001).status == 400


def test_tenant_sees_and_replays_nothing(queue: MemoryDeadLetters) -> None:
    clock = Clock()
    id = queue.add(1)
    auth = FixedAuth(Requester(is_admin=False, project_id="blue"))
    tenant = ApiClient(clock=clock, auth=auth, bus=queue.services(clock))
    for response in (tenant(PATH), tenant(f"{PATH}/{id}"), replay(tenant, id=id)):
        assert response.status == 403
        assert "for administrators only" in text_of(response)
    assert queue.read == 0


def test_server_without_a_bus_says_so() -> None:
    client = ApiClient(auth=FixedAuth(Requester(is_admin=True)))
    assert "This server knows no message bus" in text_of(client(PATH))
    assert client(f"{PATH}/11111111-0000-4000-8000-000000000000").status == 404
    assert replay(client, kind="invalid").status == 404


def test_requests_read_the_queue_one_after_another(queue: MemoryDeadLetters) -> None:
    """Two readers at once would each see a part of the queue."""
    clock = Clock()
    services = queue.services(clock)
    id = queue.add(1)
    held = services._reading.acquire()
    assert held.called
    waiting: list[Any] = []
    Deferred.fromCoroutine(services.letter(id)).addBoth(waiting.append)
    assert not waiting
    services._reading.release()
    assert waiting[0].id == id
    services._reading.acquire()
    Deferred.fromCoroutine(services.letters(10)).addErrback(lambda failure: waiting.append(failure.getErrorMessage()))
    clock.advance(11)
    assert waiting[1] == "another request reads the dead letters"
