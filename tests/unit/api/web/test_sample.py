"""The page ``/sample``: the signed message of a sample and what was checked."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.web.test_resources import get
from tests.unit.api.web.test_resources import text_of

HOSTILE = "</code></pre><script>alert(1)</script>"


@pytest.fixture(scope="module")
def api() -> ApiClient:
    api = ApiClient(auth=TOKENS, keys=KEYS)
    hostile = message(5, message_id="hostile", name=HOSTILE, resource_metadata={HOSTILE: HOSTILE, "long": "x" * 40_000})
    Deferred.fromCoroutine(api.store.write([hostile]))
    return api


def test_valid_sample_shows_the_message_and_each_check(api: ApiClient) -> None:
    page = text_of(get(api, "/sample?id=s0"))
    assert '<span class="badge good">valid</span>' in page
    assert "Signature of the batch over all digests" in page
    assert "number 0 of 1" in page
    assert "&#34;counter_volume&#34;: 10" in page
    assert "meter-verify --from 2026-11-22T12:00:00 --to 2026-11-22T12:00:00.000001 --meter cpu" in page
    assert "Not covered: the time when it was recorded" in page
    assert "invalid" not in page


def test_server_without_keys_says_that_it_checked_nothing() -> None:
    page = text_of(get(ApiClient(auth=TOKENS), "/sample?id=s0"))
    assert "This server has no signing keys and has checked no signature." in page
    assert '<span class="badge good">valid</span> The sample' not in page
    assert '<p role="status"><span class="badge warn">not checked</span>' in page


def test_hostile_names_are_text_and_a_long_message_is_cut(api: ApiClient) -> None:
    page = text_of(get(api, "/sample?id=hostile"))
    assert "<script>alert" not in page
    assert len(page) < 60_000
    assert "has the whole message" in page


@pytest.mark.parametrize(
    ("id", "who", "status"),
    [("s2", "blue", 404), ("s0", "blue", 200), ("s0", "green", 404), ("nope", "admin", 404), ("", "admin", 400)],
)
def test_tenant_gets_the_own_samples_as_from_the_api(api: ApiClient, id: str, who: str, status: int) -> None:
    assert get(api, f"/sample?id={id}", who).status == status
    if id:
        headers = {"X-Auth-Token": f"{who}-token"}
        assert api(f"/v2/samples/{id}/proof", headers=headers).status == status
