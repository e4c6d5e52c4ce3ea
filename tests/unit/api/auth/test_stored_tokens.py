"""Auth mode ``tokens``: those of the configuration, and those of the database, which are read again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from meter.api import IAuth
from meter.api import Requester
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.api import StoredTokens
from meter.api_token import ApiToken
from meter.api_token import IApiTokens
from meter.api_token import digest_of
from meter.api_token import id_of
from meter.api_token import new_token
from meter.interfaces import IDependency
from meter.interfaces import Unavailable
from tests.api_client import RECORDED
from tests.api_client import ApiClient
from tests.api_client import Response

MAX_UNCHECKED_SECONDS = 300


@implementer(IApiTokens)
class Table:
    """The tokens of a database; ``failure`` replaces them, and ``gate`` delays them."""

    def __init__(self) -> None:
        self.stored: Sequence[ApiToken] = []
        self.failure: Exception | None = None
        self.gate: Deferred[None] | None = None
        self.read = 0
        self.notify: Callable[[], object] = lambda: None

    async def tokens(self) -> Sequence[ApiToken]:
        self.read += 1
        if self.gate is not None:
            await self.gate
        if self.failure is not None:
            raise self.failure
        return self.stored

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        self.notify = callback
        return lambda: None

    def create(self, project_id: str | None = "blue", minutes: float | None = None) -> str:
        text = new_token()
        expires_at = None if minutes is None else RECORDED + timedelta(minutes=minutes)
        is_admin = project_id is None
        self.stored = [
            *self.stored,
            ApiToken(str(id_of(text)), digest_of(text), is_admin, project_id, "ann", expires_at),
        ]
        return text


class Site:
    """An API whose tokens are in ``table``, apart from one of the configuration."""

    def __init__(self) -> None:
        self.table = Table()
        self.api = ApiClient(auth=self)
        configured = StaticToken(hashlib.sha256(b"configured").hexdigest(), Requester(True))
        self.auth = StoredTokens(
            self.table, StaticTokens([configured]), self.api.clock, max_unchecked_seconds=MAX_UNCHECKED_SECONDS
        )

    async def requester(self, request: Any) -> Any:
        return await self.auth.requester(request)

    def refresh(self) -> None:
        Deferred.fromCoroutine(self.auth.refresh())

    def __call__(self, token: str) -> Response:
        return self.api("/v2/samples", headers={"X-Auth-Token": token})


@pytest.fixture
def site() -> Site:
    return Site()


def test_stored_tokens_provide_auth_and_dependency(site: Site) -> None:
    verifyObject(IAuth, site.auth)
    verifyObject(IDependency, site.auth)
    verifyObject(IApiTokens, site.table)


def test_tokens_of_the_database_are_accepted_beside_those_of_the_configuration(site: Site) -> None:
    blue, admin = site.table.create("blue"), site.table.create(None)
    site.refresh()
    assert {sample["id"] for sample in site(blue).json} == {"s0", "s1"}
    assert [len(site(token).json) for token in (admin, "configured")] == [4, 4]


@pytest.mark.parametrize("token", ["", "wrong", f"meter_{'0' * 12}_{'A' * 43}", "meter_", "x" * 9000])
def test_other_tokens_are_401_and_ask_nothing_of_the_database(site: Site, token: str) -> None:
    site.refresh()
    for _ in range(100):
        response = site(token)
    assert response.status == 401
    assert response.headers["www-authenticate"] == 'Token realm="meter"'
    assert site.table.read == 1


def test_revocation_takes_effect_with_the_next_reading_and_a_notification_causes_one(site: Site) -> None:
    token = site.table.create()
    site.refresh()
    site.table.stored = []
    assert site(token).status == 200
    site.table.notify()
    assert site(token).status == 401


def test_new_token_is_accepted_after_a_notification(site: Site) -> None:
    site.refresh()
    token = site.table.create()
    site.table.notify()
    assert site(token).status == 200


def test_notification_during_a_reading_causes_another_one(site: Site) -> None:
    token = site.table.create()
    site.table.gate = Deferred()
    site.refresh()
    site.table.notify()
    site.table.notify()
    gate, site.table.gate = site.table.gate, None
    gate.callback(None)
    assert site.table.read == 2
    assert site(token).status == 200


def test_token_is_refused_from_its_expiry_on(site: Site) -> None:
    token = site.table.create(minutes=1)
    site.refresh()
    site.api.clock.advance(59)
    assert site(token).status == 200
    site.api.clock.advance(1)
    assert site(token).status == 401


# --- while the database is away ------------------------------------------------------------------------------------


def test_before_the_first_reading_stored_tokens_are_503_and_configured_ones_work(site: Site) -> None:
    token = site.table.create()
    assert site(token).status == 503
    assert site("configured").status == 200
    assert site("wrong").status == 401
    state = site.auth.readiness()
    assert (state.ready, state.needed) == (False, True)


def test_tokens_that_were_read_are_accepted_for_a_time_and_then_503(site: Site) -> None:
    token = site.table.create()
    site.refresh()
    site.table.failure = Unavailable("no connection")
    site.api.clock.advance(MAX_UNCHECKED_SECONDS)
    site.refresh()
    assert site(token).status == 200
    state = site.auth.readiness()
    assert (state.ready, state.needed, "300 s ago" in state.reason) == (False, False, True)
    site.api.clock.advance(1)
    assert site(token).status == 503
    assert site.auth.readiness().needed
    site.table.failure = None
    site.refresh()
    assert site(token).status == 200
    assert site.auth.readiness().ready


def test_unknown_token_is_503_while_it_may_be_newer_than_the_last_reading(site: Site) -> None:
    site.refresh()
    site.table.failure = Unavailable("no connection")
    site.refresh()
    assert site(new_token()).status == 503
    assert site("no token of ours").status == 401


def test_expiry_counts_while_the_database_is_away(site: Site) -> None:
    token = site.table.create(minutes=1)
    site.refresh()
    site.table.failure = Unavailable("no connection")
    site.refresh()
    site.api.clock.advance(60)
    assert site(token).status == 401


def test_reading_that_hangs_ends_the_acceptance_too(site: Site) -> None:
    token = site.table.create()
    site.refresh()
    site.table.gate = Deferred()
    site.refresh()
    site.api.clock.advance(MAX_UNCHECKED_SECONDS + 1)
    assert site(token).status == 503
