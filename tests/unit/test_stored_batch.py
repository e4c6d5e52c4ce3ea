"""A stored batch tells which of its messages were altered, removed or added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meter.batch_signature import sign_batch
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring
from meter.stored_batch import StoredBatch
from meter.stored_batch import UnstoredEntry
from meter.stored_batch import checks_of
from meter.stored_batch import verify_stored_batch
from tests.unit.test_batch_signature import message

KEYS = keyring(["secret"])
KEY = KEYS.keys[0]
MESSAGES = [message(n) for n in range(4)]
SIGNED = sign_batch(MESSAGES, KEY.id, KEY.secret)
ENTRY = KEYS.verify_batch(SIGNED).entry(3, MESSAGES[3])
UNSTORED = UnstoredEntry(3, ENTRY.digest, "duplicate", ENTRY.unstored_mac("duplicate"))
STORED = StoredBatch(
    id=SIGNED.id,
    key_id=KEY.id,
    first=SIGNED.first,
    last=SIGNED.last,
    mac=SIGNED.mac,
    checks=checks_of(SIGNED.digests),
    messages=list(enumerate(MESSAGES)),
    unstored=[],
)
PARTLY = replace(STORED, messages=STORED.messages[:3], unstored=[UNSTORED])
ALTERED = "the row was altered or added"
RECORD = "the record of the batch was altered"


@pytest.mark.parametrize("batch", [STORED, PARTLY, replace(STORED, messages=STORED.messages[::-1])])
def test_unchanged_batch_is_verified(batch: StoredBatch) -> None:
    found = verify_stored_batch(batch, KEY)
    assert found.problems == [None] * len(batch.messages)
    assert (found.missing, found.damage, found.digests, found.signature_matches) == ([], None, SIGNED.digests, True)


def with_message(index: int, position: int, fields: Any) -> StoredBatch:
    messages: list[Any] = list(STORED.messages)
    messages[index : index + 1] = [(position, fields)]
    return replace(STORED, messages=messages)


@pytest.mark.parametrize("change", [{"counter_volume": 2.0}, {"user_id": ""}, {"x": None}, {"resource_metadata": {}}])
def test_altered_row_is_named_and_no_other(change: dict[str, Any]) -> None:
    found = verify_stored_batch(with_message(2, 2, {**MESSAGES[2], **change}), KEY)
    assert [problem and problem.partition(":")[0] for problem in found.problems] == [None, None, ALTERED, None]
    assert (found.missing, found.digests, found.signature_matches) == ([], None, None)


def test_row_from_which_no_message_can_be_restored_is_named() -> None:
    found = verify_stored_batch(with_message(1, 1, None), KEY)
    assert found.problems == [None, "no message can be restored from the row", None, None]
    assert found.missing == []


def test_row_that_is_not_json_is_named() -> None:
    assert "cannot be signed" in str(verify_stored_batch(with_message(1, 1, {"a": "\ud800"}), KEY).problems[1])


@pytest.mark.parametrize("gone", [[0], [3], [1, 2], [0, 1, 2]])
def test_removed_rows_are_named(gone: list[int]) -> None:
    left = [each for each in STORED.messages if each[0] not in gone]
    found = verify_stored_batch(replace(STORED, messages=left), KEY)
    assert (found.problems, found.missing, found.digests) == ([None] * len(left), gone, None)


@pytest.mark.parametrize(
    ("position", "n", "reason"),
    [
        (4, 0, "the batch was signed with 4 messages, and this is number 4"),
        (-1, 3, "the batch was signed with 4 messages, and this is number -1"),
        (2, 2, "another row is the same message"),
        (2, 1, ALTERED),
    ],
)
def test_added_row_is_named(position: int, n: int, reason: str) -> None:
    added = replace(STORED, messages=[*STORED.messages, (position, MESSAGES[n])])
    found = verify_stored_batch(added, KEY)
    assert found.problems[:4] == [None] * 4
    assert reason in str(found.problems[4])
    assert found.signature_matches is True


def test_swapped_rows_are_named() -> None:
    swapped = replace(STORED, messages=[(1, MESSAGES[0]), (0, MESSAGES[1]), *STORED.messages[2:]])
    found = verify_stored_batch(swapped, KEY)
    assert [bool(problem) for problem in found.problems] == [True, True, False, False]


@pytest.mark.parametrize(
    "change",
    [
        {"position": 2},
        {"position": 9},
        {"digest": SIGNED.digest(2)},
        {"digest": bytes(32)},
        {"reason": "refused"},
        {"mac": bytes(32)},
        {"mac": b""},
    ],
)
def test_forged_statement_about_an_unstored_entry_is_named(change: dict[str, Any]) -> None:
    found = verify_stored_batch(replace(PARTLY, unstored=[UNSTORED._replace(**change)]), KEY)
    position = change.get("position", 3)
    assert found.damage == f"the statement that message {position} was not stored is not the collector's"
    assert found.missing == [3]


def test_statement_about_an_entry_that_is_stored_as_well_hides_no_altered_row() -> None:
    altered = replace(with_message(3, 3, {**MESSAGES[3], "counter_volume": 0}), unstored=[UNSTORED])
    assert ALTERED in str(verify_stored_batch(altered, KEY).problems[3])


@pytest.mark.parametrize(
    "change",
    [{"mac": bytes(32)}, {"mac": b""}, {"first": "2025-01-01T00:00:00"}, {"last": "2027-01-01T00:00:00"}],
)
def test_altered_record_of_the_batch_is_named(change: dict[str, Any]) -> None:
    found = verify_stored_batch(replace(STORED, **change), KEY)
    assert found.signature_matches is False
    assert RECORD in str(found.damage)


@pytest.mark.parametrize("change", [{"id": "00000000-0000-4000-8000-000000000000"}, {"checks": bytes(16)}])
def test_altered_id_or_checks_make_every_row_fail(change: dict[str, Any]) -> None:
    assert all(ALTERED in str(problem) for problem in verify_stored_batch(replace(STORED, **change), KEY).problems)


def test_checks_of_fewer_messages_hide_no_removed_row() -> None:
    shorter = replace(STORED, checks=STORED.checks[:12], messages=STORED.messages[:3])
    found = verify_stored_batch(shorter, KEY)
    assert (found.missing, found.signature_matches) == ([], False)
    assert RECORD in str(found.damage)


def test_another_key_makes_every_row_fail() -> None:
    other = SigningKey(KEY.id, b"other")
    assert all(verify_stored_batch(STORED, other).problems)
    assert verify_stored_batch(PARTLY, other).damage is not None
