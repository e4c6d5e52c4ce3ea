"""Ids of polled samples have bytes in common: who knows some can neither read nor hinder the samples of others with them."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted

from meter.api.auth.requester import Requester
from meter.api.auth.static_tokens import StaticTokens
from meter.message_ids import PollIds
from meter.query import SampleFilter
from meter.testing import MemoryStore
from tests.api_client import NOON
from tests.api_client import ApiClient
from tests.api_client import message
from tests.unit.api.auth.test_visibility import token

NOON_MILLISECONDS = int(NOON.timestamp() * 1000)
MINE = Requester(is_admin=False, project_id="mine")
AUTH = StaticTokens([token("mine-token", MINE)])


class Agent:
    """The ids of an agent that polls every five minutes two samples, of projects ``mine`` and ``theirs``."""

    def __init__(self) -> None:
        self.polls = 0
        self._ids = PollIds(lambda: NOON_MILLISECONDS + 300_000 * self.polls, random=random.Random("agent").randbytes)

    def poll(self) -> tuple[str, str]:
        self.polls += 1
        self._ids.begin()
        return self._ids.next(), self._ids.next()


def with_time(id_: str, milliseconds: int) -> str:
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}{id_[13:]}"


def with_number(id_: str, step: int) -> str:
    return f"{id_[:-6]}{(int(id_[-6:], 16) + step) % 2**24:06x}"


@pytest.fixture
def agent() -> Agent:
    return Agent()


def test_tenant_who_guesses_ids_of_the_same_poll_is_told_the_same_as_for_one_that_nobody_has(agent: Agent) -> None:
    own, foreign = agent.poll()
    store = MemoryStore()
    for id_, project in ((own, "mine"), (foreign, "theirs")):
        work: Any = store.write([message(message_id=id_, project_id=project)])
        with pytest.raises(StopIteration):
            work.send(None)
    api = ApiClient(store=store, auth=AUTH)

    def asked(id_: str) -> tuple[int, str]:
        found = api(f"/v2/samples/{id_}", headers={"X-Auth-Token": "mine-token"})
        return found.status, found.body.decode().replace(id_, "ID")

    assert asked(own)[0] == 200
    nobodys = asked(with_number(own, 7))
    assert nobodys[0] == 404
    assert asked(foreign) == nobodys


def test_ids_beside_those_of_ones_own_sample_are_those_of_nobody(agent: Agent) -> None:
    own, foreign = agent.poll()

    assert foreign not in {with_number(own, step) for step in range(-1000, 1000)}


@pytest_twisted.ensureDeferred
async def test_key_holder_who_knows_ids_of_an_agent_cannot_claim_those_of_its_next_poll(agent: Agent) -> None:
    """By the interval, to the millisecond. What a tenant with a key of its own knows is the ids of its own samples."""
    known = [agent.poll()[0] for _ in range(10)]
    times = [int(each[:8] + each[9:13], 16) for each in known]
    next_poll = NOON_MILLISECONDS + 300_000 * (agent.polls + 1)
    likely = {*range(next_poll - 5, next_poll + 5), *(times[-1] + 300_000 + step for step in range(-5, 5))}
    store = MemoryStore()
    at = NOON + timedelta(minutes=5 * agent.polls)
    claimed = [
        message(message_id=with_number(with_time(known[-1], time), step), timestamp=at, volume=666)
        for time in likely
        for step in range(-2, 3)
    ]
    assert (await store.write(claimed)).stored == len(claimed)

    true = [message(message_id=each, timestamp=at, volume=1) for each in agent.poll()]
    outcome = await store.write(true)

    assert (outcome.stored, outcome.refused) == (2, ())
    assert {
        each.volume for each in await store.samples(SampleFilter(equals={"message_id": true[0].message_id}), 9)
    } == {1}
