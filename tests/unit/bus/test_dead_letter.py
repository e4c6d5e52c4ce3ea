"""Dead letters are read whoever wrote them, and say why they had better not go back."""

from __future__ import annotations

import pytest

from meter.bus.dead_letter import letter

WRITTEN = {
    "meter-id": "3f2a9c1e-5d0e-4c55-9a3b-2f8f0e7b1f66",
    "meter-at": "2026-11-22T17:00:59",
    "meter-kind": "unverified",
    "meter-meter": "cpu",
    "meter-reason": "the signature does not match",
    "meter-exchange": "metering",
    "meter-routing-key": "metering.cpu",
    "meter-queue": "meter.metering",
}


def test_a_letter_is_read_as_it_was_written():
    found = letter(WRITTEN, b"{}")
    assert (found.id, found.kind, found.about) == (WRITTEN["meter-id"], "unverified", "cpu")
    assert (found.masked, found.cut, found.replayed, found.not_replayable) == (False, False, 0, None)


def test_a_letter_goes_back_to_its_queue_alone_and_carries_where_it_came_from():
    going = letter(WRITTEN, b"{}").publication()
    assert (going.exchange, going.routing_key, going.body) == ("", "meter.metering", b"{}")
    assert going.headers == {
        "meter-replayed": 1,
        "meter-exchange": "metering",
        "meter-routing-key": "metering.cpu",
    }


def test_without_a_queue_it_goes_to_its_exchange():
    going = letter({**WRITTEN, "meter-queue": ""}, b"{}").publication()
    assert (going.exchange, going.routing_key) == ("metering", "metering.cpu")


@pytest.mark.parametrize(
    ("headers", "not_replayable"),
    [
        ({"meter-masked": True}, "secrets in its body were masked"),
        ({"meter-cut": True}, "only the beginning"),
        ({"meter-size": 20_000_000, "meter-masked": True}, "only the beginning"),
    ],
)
def test_what_is_not_as_it_was_sent_says_so(headers, not_replayable):
    assert not_replayable in (letter(WRITTEN | headers, b"{}").not_replayable or "")


def test_a_letter_that_somebody_else_put_there_has_an_id_too_and_nowhere_to_go():
    found = letter({"x-death": [{"queue": "other"}], "meter-at": b"\xff", "meter-kind": 5}, b"a")
    assert found.id == letter({}, b"a").id != letter({}, b"b").id
    assert (found.at, found.kind) == (r"b'\\xff'", "5")
    assert "nobody wrote down" in (found.not_replayable or "")
