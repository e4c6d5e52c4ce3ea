"""No body and no page holds the reactor: the work of all requests is cut into slices that they share.

The clock of these tests advances when it is read, as if the work between two readings took half a millisecond. What is
counted is how much is done in a turn of the reactor, and how many turns there are.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api import SampleIngest
from meter.api.rendering import lists
from meter.daemon.full_collections import FullCollections
from meter.daemon.shared_slices import SharedSlices
from meter.outgoing import Signer
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.test_ingest import APPLE
from tests.unit.api.test_ingest import RecordingBus

CUSTOM = {**APPLE, "counter_name": "custom.apples"}

STEP_SECONDS = 0.0005
MOST_PER_TURN = 25
"""Steps in one turn, of which each takes half a millisecond: a turn may take a little more than ten milliseconds."""


class WorkingClock(Clock):
    """A clock that advances by :data:`STEP_SECONDS` whenever it is read; what it delays is called by :meth:`turn`."""

    def seconds(self) -> float:
        self.rightNow += STEP_SECONDS
        return self.rightNow

    def turn(self) -> None:
        """Make the calls that are due now, as one turn of the reactor does; those that they schedule wait for the next."""
        due = [call for call in self.calls if call.getTime() <= self.rightNow]
        for call in due:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class CountedTurns:
    """Sends requests, and counts the turns until all are answered, and the steps that a turn had at most."""

    def __init__(self, steps: list[Any] | None = None, **collaborators: Any) -> None:
        self.clock = WorkingClock()
        self.api = ApiClient(clock=self.clock, auth=TOKENS, **collaborators)
        self.steps = steps if steps is not None else []
        self.most_steps = 0

    def send(self, path: str, who: str = "admin", body: Any = None) -> list[Response]:
        responses: list[Any] = []
        headers = {"X-Auth-Token": f"{who}-token", "Content-Type": "application/json"}
        content = {} if body is None else {"method": "POST", "body": msgspec.json.encode(body)}
        self._count(lambda: self.api.pending(path, headers=headers, **content).addBoth(responses.append))
        return responses

    def _count(self, work: Any) -> None:
        before = len(self.steps)
        work()
        self.api.flush()
        self.most_steps = max(self.most_steps, len(self.steps) - before)

    def until_answered(self, *requests: list[Response]) -> int:
        """Return the number of turns."""
        turns = 0
        while not all(requests):
            assert turns < 10_000
            self._count(self.clock.turn)
            turns += 1
        return turns


def test_long_page_is_rendered_in_slices() -> None:
    store = MemoryStore()
    Deferred.fromCoroutine(store.write([message(n, message_id=f"n{n}") for n in range(3000)]))
    turns = CountedTurns(store=store)
    page = turns.send("/v2/samples?limit=3000")
    assert turns.until_answered(page) > 3000 / 10 / MOST_PER_TURN
    assert [each["id"] for each in page[0].json] == [f"n{n}" for n in reversed(range(3000))]


@pytest.mark.parametrize("path", ["/v1/resources/vm-1/meters/cpu", "/v2/meters/cpu/statistics?period=60"])
def test_other_long_lists_are_rendered_in_slices_too(path: str) -> None:
    store = MemoryStore()
    Deferred.fromCoroutine(store.write([message(n, message_id=f"n{n}") for n in range(3000)]))
    turns = CountedTurns(store=store)
    answer = turns.send(path)
    assert turns.until_answered(answer) > 3000 / 10 / MOST_PER_TURN
    rows = answer[0].json if isinstance(answer[0].json, list) else answer[0].json["events"]
    assert len(rows) == 3000


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every sample that the API signs."""
    signed: list[Any] = []
    whole = Signer.message

    def message(self: Signer, sample: Any, *others: Any) -> Any:
        signed.append(sample)
        return whole(self, sample, *others)

    monkeypatch.setattr(Signer, "message", message)
    return signed


def accepting(signed: list[Any]) -> CountedTurns:
    store = MemoryStore()
    return CountedTurns(signed, store=store, ingest=SampleIngest(KEYS, "openstack", RecordingBus(), store))  # type: ignore[arg-type]


@pytest.mark.parametrize("posts", [1, 12])
@pytest.mark.parametrize("query", ["", "?direct=True"])
def test_posts_are_signed_in_slices_that_all_of_them_share(signed: list[Any], posts: int, query: str) -> None:
    turns = accepting(signed)
    answers = [turns.send(f"/v2/meters/custom.apples{query}", "blue", [CUSTOM] * 200) for _ in range(posts)]
    turns.until_answered(*answers)
    assert {each[0].status for each in answers} == {201} if posts == 1 else {201, 429}
    assert len(signed) >= 200
    assert turns.most_steps <= MOST_PER_TURN
    assert len(answers[0][0].json) == 200


def test_page_of_another_tenant_does_not_wait_for_posts(signed: list[Any]) -> None:
    turns = accepting(signed)
    posts = [turns.send("/v2/meters/custom.apples", "blue", [CUSTOM] * 300) for _ in range(8)]
    page = turns.send("/v2/samples?limit=100", "green")
    assert turns.until_answered(page) < 10
    assert not any(posts)


# --- slices --------------------------------------------------------------------------------------------------------


def test_owners_work_in_rotation() -> None:
    clock = WorkingClock()
    shared = SharedSlices(clock, seconds=0.002, total_seconds=0.005)
    done: list[str] = []

    async def work(owner: str) -> None:
        async for batch in shared.of(owner).batches(range(30), 1):
            done.extend(owner for _ in batch)

    for owner in ("hostile", "hostile", "hostile", "other"):
        Deferred.fromCoroutine(work(owner))
    while done.count("other") < 30:
        clock.turn()
    assert done.count("hostile") < 3 * 30


def test_cancelled_work_leaves_the_rotation() -> None:
    clock = WorkingClock()
    shared = SharedSlices(clock)
    waiting = Deferred.fromCoroutine(shared.pause("a"))
    other = Deferred.fromCoroutine(shared.pause("b"))
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    clock.turn()
    assert other.called


def test_work_goes_on_after_the_process_was_suspended_for_a_whole_turn() -> None:
    clock = WorkingClock()
    slices = SharedSlices(clock)
    paused = Deferred.fromCoroutine(slices.of("tenant").pause())
    usual = clock.seconds

    def suspended() -> float:  # as by a full collection, between any two readings
        clock.rightNow += 1.0
        return clock.rightNow

    clock.seconds = suspended  # type: ignore[method-assign]
    clock.turn()
    clock.seconds = usual  # type: ignore[method-assign]
    for _ in range(3):
        clock.turn()

    assert paused.called


def test_clock_that_is_set_back_ends_the_slice() -> None:
    clock = Clock()
    clock.advance(1000)
    slices = SharedSlices(clock).of("a")
    assert not slices.over
    clock.rightNow -= 500
    assert slices.over


def test_consumed_list_is_freed_meanwhile() -> None:
    items = list(range(100))
    slices = SharedSlices(Clock()).of("a")
    left: list[tuple[list[int], int]] = []

    async def consume() -> None:
        async for batch in slices.consume(items, 40):
            left.append((batch, len(items)))

    Deferred.fromCoroutine(consume())
    assert left == [(list(range(40)), 60), (list(range(40, 80)), 20), (list(range(80, 100)), 0)]


# --- a body is refused before it is parsed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[" + b",".join([b"{}"] * 60_000) + b"]", "at most 10000 samples"),
        (b"[" + b",".join([b"{}"] * 10_001) + b"]", "this one has 10001"),
        (msgspec.json.encode([{**APPLE, "resource_metadata": {"a": "x" * 40_000}}]), "at most 32768 bytes"),
        (b"[" + b"1," * 200_000 + b"1]", "The body of a query can have at most 131072 bytes"),
        (b"[" + b"1," * 2_000 + b"1]", "must be a list of samples, each an object"),
        (b"[{}, {", "The body cannot be decoded: invalid JSON"),
    ],
)
def test_hostile_post_is_refused_before_its_samples_are_parsed(signed: list[Any], body: bytes, text: str) -> None:
    store = MemoryStore()
    ingest = SampleIngest(KEYS, "openstack", RecordingBus(), store)  # type: ignore[arg-type]
    response = ApiClient(store=store, ingest=ingest).post("/v2/meters/apples", body)
    assert (response.status, text in response.faultstring) == (400, True), response.faultstring
    assert signed == []


def test_complex_query_that_is_too_large_is_refused_before_it_is_parsed() -> None:
    response = ApiClient().post("/v2/query/samples", b'{"filter": "' + b" " * 200_000 + b'"}')
    assert response.status == 400
    assert response.faultstring == "The body of a query can have at most 131072 bytes; this one has 200014."


# --- garbage collection --------------------------------------------------------------------------------------------


def test_full_collections_wait_for_long_requests_but_not_for_ever() -> None:
    clock, busy = Clock(), [True]
    collections = FullCollections(clock, lambda: busy[0])
    collections.startService()
    clock.pump([10] * 29)
    assert collections.collections == 0
    clock.pump([10])
    assert collections.collections == 1
    busy[0] = False
    clock.pump([10])
    assert collections.collections == 2
    collections.stopService()


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 400])
def test_list_in_parts_is_the_same_as_in_one(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    api = ApiClient(store=(store := MemoryStore()))
    Deferred.fromCoroutine(store.write([message(n, message_id=f"n{n}") for n in range(count)]))
    paths = ("/v2/samples?limit=500", "/v1/resources/vm-1/meters/cpu")
    whole = [api(path).body for path in paths]
    monkeypatch.setattr(lists, "PART_BYTES", 1000)
    assert [api(path).body for path in paths] == whole
    assert len(msgspec.json.decode(whole[0])) == count
    head = api(paths[0], method="HEAD")
    assert (head.headers["content-length"], head.body) == (str(len(whole[0])), b"")
