"""The member of the metadata that is Meter's own: clients of Ceilometer do not see it, a proof has it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.asking import Asking
from tests.asking import message

RESERVED = {"_meter": {"run": "hv1/1/vda", "interval": 300}}
SENT = message(4, message_id="s9", resource_id="vm-9", resource_metadata={**RESERVED, "display_name": "nine"})


@pytest.fixture
def ask() -> Asking:
    asking = Asking()
    Deferred.fromCoroutine(asking.store.write([SENT]))
    return asking


@pytest.mark.parametrize("media_type", ["application/json", "text/csv", "application/x-ndjson"])
@pytest.mark.parametrize(
    "path",
    [
        "/v2/samples?q.field=resource_id&q.value=vm-9",
        "/v2/samples/s9",
        "/v2/meters/cpu?q.field=resource_id&q.value=vm-9",
        "/v2/resources",
        "/v2/resources/vm-9",
        "/v1/resources",
        "/v1/resources/vm-9/meters/cpu",
    ],
)
def test_no_answer_shows_it(ask: Asking, path: str, media_type: str) -> None:
    answer = ask(path, headers={"Accept": f"{media_type}, */*;q=0.1"})

    assert answer.status == 200
    assert b"nine" in answer.body
    assert b"_meter" not in answer.body
    assert b"hv1/1" not in answer.body


def test_a_complex_query_asks_for_it_and_does_not_show_it(ask: Asking) -> None:
    answer = ask.post("/v2/query/samples", {"filter": '{"=": {"metadata._meter.run": "hv1/1/vda"}}'})

    assert [each["metadata"] for each in answer.json] == [{"display_name": "nine"}]


def test_a_proof_is_the_message_as_it_was_signed(ask: Asking) -> None:
    assert ask("/v2/samples/s9/proof").json["message"]["resource_metadata"]["_meter"] == RESERVED["_meter"]
