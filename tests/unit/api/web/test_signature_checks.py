"""What proves a sample: each check, valid, invalid and not made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred

from meter.api.web.signature_checks import Outcome
from meter.api.web.signature_checks import covered_members
from meter.api.web.signature_checks import outcome_of
from meter.api.web.signature_checks import signature_checks
from meter.api.web.signature_checks import verify_command
from meter.ceilometer_signature import signature as signature_of
from meter.commands.verify import Options
from meter.query import SampleFilter
from meter.query import StoredSample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring
from meter.stored_batch import StoredProof
from tests.api_client import KEYS
from tests.api_client import ApiClient


def stored(message_id: str = "s0") -> tuple[StoredProof, StoredSample]:
    """Return the proof of a stored sample, and the sample."""
    store = ApiClient().store
    found: list[Any] = []
    for question in (store.proof(message_id), store.sample(message_id, SampleFilter())):
        Deferred.fromCoroutine(question).addCallback(found.append)
    return found[0], found[1]


def outcomes(proof: StoredProof, sample: StoredSample | None, keys: Keyring | None = KEYS) -> Mapping[str, Outcome]:
    """Return the outcomes by the first word of each check."""
    return {each.what.split(maxsplit=1)[0]: each.outcome for each in signature_checks(proof, sample, keys)}


def changed_row(proof: StoredProof, **changes: Any) -> StoredProof:
    """Return ``proof`` after someone has altered the row of the message."""
    message = {**proof.message, **changes}
    assert proof.batch is not None
    others = [(place, fields) for place, fields in proof.batch.messages if place != proof.position]
    return replace(proof, message=message, batch=replace(proof.batch, messages=[(proof.position, message), *others]))


def test_stored_sample_is_valid_in_all_checks() -> None:
    proof, sample = stored()
    checks = signature_checks(proof, sample, KEYS)
    assert {each.outcome for each in checks} == {"valid"}
    assert outcome_of(checks) == "valid"
    assert len(checks) == 5
    assert "key-1" in " ".join(each.found for each in checks)


def test_sample_that_differs_from_its_message_is_invalid_and_the_members_are_named() -> None:
    proof, sample = stored()
    [check, *_] = signature_checks(proof, msgspec.structs.replace(sample, volume=11, project_id="red"), KEYS)
    assert (check.outcome, check.found) == ("invalid", "these members differ: volume, project_id")


def test_altered_message_is_invalid() -> None:
    proof, sample = stored()
    found = outcomes(changed_row(proof, counter_volume=1000), msgspec.structs.replace(sample, volume=1000))
    assert found["Digest"] == "invalid"
    assert found["The"] == "valid"  # it is shown as it is stored now: only the digest tells


def test_message_that_is_shown_must_be_the_one_that_was_compared() -> None:
    proof, sample = stored()
    assert outcomes(replace(proof, message={**proof.message, "counter_volume": 9}), sample)["Digest"] == "invalid"


def test_signature_of_the_batch_that_was_altered_is_invalid() -> None:
    proof, sample = stored()
    assert proof.batch is not None
    found = outcomes(replace(proof, batch=replace(proof.batch, mac=bytes(32))), sample)
    assert found["Signature"] == "invalid"


def test_removed_neighbour_leaves_the_signature_unchecked_and_says_how_many() -> None:
    proof, sample = stored()
    assert proof.batch is not None
    batch = replace(proof.batch, checks=proof.batch.checks + b"more")
    checks = signature_checks(replace(proof, batch=batch), sample, KEYS)
    by_word = {each.what.split(maxsplit=1)[0]: each for each in checks}
    assert by_word["All"].found.startswith("1 of them are not stored any more")
    assert (by_word["All"].outcome, by_word["Signature"].outcome) == ("not checked", "not checked")
    assert outcome_of(checks) == "not checked"


@pytest.mark.parametrize("keys", [None, keyring(["another secret"])])
def test_without_the_key_nothing_is_called_valid(keys: Keyring | None) -> None:
    proof, sample = stored()
    assert proof.batch is not None
    other = replace(proof, batch=replace(proof.batch, key_id="key-9"))
    assert outcome_of(signature_checks(other, sample, keys)) == "not checked"


def test_missing_record_of_the_batch_is_invalid() -> None:
    proof, sample = stored()
    assert outcomes(replace(proof, batch=None), sample)["Signed"] == "invalid"


@pytest.mark.parametrize(
    "key",
    [
        SigningKey("key-1", b"secret", not_after=datetime(2020, 1, 1, tzinfo=UTC)),
        SigningKey("key-1", b"secret", meters=("memory",)),
        SigningKey("key-1", b"secret", schemes=("ceilometer",)),
    ],
)
def test_key_that_may_not_sign_the_sample_is_invalid(key: SigningKey) -> None:
    assert outcomes(*stored(), Keyring([key]))["Permission"] == "invalid"


def test_unsigned_message_is_not_called_valid() -> None:
    proof, sample = stored()
    unsigned = replace(proof, batch=None, scheme=None, key_id=None)
    assert outcome_of(signature_checks(unsigned, sample, KEYS)) == "not checked"
    assert covered_members(unsigned) == []


@pytest.mark.parametrize(
    ("keys", "signature", "outcome"),
    [
        (KEYS, None, "valid"),
        (KEYS, "0" * 64, "invalid"),
        (keyring(["other"]), None, "invalid"),
        (None, None, "not checked"),
    ],
)
def test_ceilometers_signature(keys: Keyring | None, signature: str | None, outcome: Outcome) -> None:
    proof, sample = stored()
    message = {**proof.message, "resource_metadata": {}}
    message["message_signature"] = signature or signature_of(message, b"secret")
    alone = replace(proof, message=message, batch=None, scheme="ceilometer")
    sample = msgspec.structs.replace(sample, metadata={})
    assert outcome_of(signature_checks(alone, sample, keys)) == outcome
    assert "message_signature" not in covered_members(alone)


def test_voided_sample_is_not_called_valid() -> None:
    proof, _ = stored()
    checks = signature_checks(replace(proof, voided=True), None, KEYS)
    assert (checks[0].outcome, checks[0].found) == ("not checked", "the sample is voided and not shown any more")


def test_stored_message_that_cannot_be_read_is_invalid() -> None:
    proof, sample = stored()
    assert outcomes(replace(proof, message={"counter_name": 1}), sample)["The"] == "invalid"


def test_command_verifies_the_sample_and_is_safe_in_a_shell() -> None:
    _, sample = stored()
    command = verify_command(msgspec.structs.replace(sample, name="a'; rm -rf $HOME"))
    words = shlex.split(command)
    options = Options()
    options.parseOptions(words[1:])
    assert words[0] == "meter-verify"
    assert options["meter"] == "a'; rm -rf $HOME"
    assert options["from"] <= sample.timestamp < options["to"]
