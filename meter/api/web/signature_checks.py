"""What proves a sample: each check of its stored message, made with the keys of this server, and its outcome in words."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import BadSignature
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import parse
from meter.query import StoredSample
from meter.sample import utc_text
from meter.signing_keys import Keyring
from meter.stored_batch import BatchFindings
from meter.stored_batch import KeyFindings
from meter.stored_batch import StoredBatch
from meter.stored_batch import StoredProof
from meter.stored_batch import verify_with_keyring

Outcome = Literal["valid", "invalid", "not checked"]

NO_KEYS = "this server has no signing keys: it cannot check any signature"


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """One check: what was compared, its outcome, and what was found, a clause."""

    what: str
    outcome: Outcome
    found: str


def signature_checks(proof: StoredProof, shown: StoredSample | None, keys: Keyring | None) -> list[SignatureCheck]:
    """Return all checks of a stored message; ``shown`` is the sample as lists show it, ``None`` if none does."""
    try:
        message: MeteringMessage | BadMessage = parse(dict(proof.message))
    except BadMessage as error:
        message = error
    return [
        *_form_checks(proof, message, shown),
        *(_batch_checks(proof, message, keys) if proof.scheme == "meter" else _message_checks(proof, message, keys)),
    ]


def outcome_of(checks: list[SignatureCheck]) -> Outcome:
    """Return the outcome of all ``checks`` together: valid only if each of them is."""
    outcomes = {each.outcome for each in checks}
    return "invalid" if "invalid" in outcomes else "not checked" if "not checked" in outcomes else "valid"


def covered_members(proof: StoredProof) -> list[str]:
    """Return the members of the message that its signature covers; none if it is unsigned."""
    return [] if proof.scheme is None else sorted(name for name in proof.message if name != SIGNATURE_FIELD)


def verify_command(sample: StoredSample) -> str:
    """Return the shell command that verifies the samples of the meter and time of ``sample``, on a host with the keys."""
    end = sample.timestamp + timedelta(microseconds=1)
    return shlex.join(
        ["meter-verify", "--from", utc_text(sample.timestamp), "--to", utc_text(end), "--meter", sample.name]
    )


def _form_checks(
    proof: StoredProof, message: MeteringMessage | BadMessage, shown: StoredSample | None
) -> Iterator[SignatureCheck]:
    what = "The sample as it is shown is what its message says"
    if isinstance(message, BadMessage):
        yield SignatureCheck(what, "invalid", f"the stored message cannot be read: {message}")
    elif shown is None:
        found = "the sample is voided and not shown any more" if proof.voided else "the sample is not shown any more"
        yield SignatureCheck(what, "not checked", found)
    else:
        names = ("name", "type", "unit", "volume", "resource_id", "user_id", "project_id", "source", "timestamp")
        differing = [name for name in names if getattr(message, name) != getattr(shown, name)]
        if message.metadata != shown.metadata:
            differing.append("metadata")
        if differing:
            yield SignatureCheck(what, "invalid", f"these members differ: {', '.join(differing)}")
        else:
            yield SignatureCheck(what, "valid", "volume, unit, owner, time and metadata are the same")


def _message_checks(
    proof: StoredProof, message: MeteringMessage | BadMessage, keys: Keyring | None
) -> Iterator[SignatureCheck]:
    what = "Ceilometer's signature of the message"
    if proof.scheme is None:
        yield SignatureCheck("Signature", "not checked", "the message was accepted unsigned: nothing proves it")
    elif keys is None:
        yield SignatureCheck(what, "not checked", NO_KEYS)
    elif isinstance(message, MeteringMessage):
        try:
            key = keys.verify_message(message.fields, message.timestamp, message.name, message.source, proof.key_id)
        except BadSignature as error:
            yield SignatureCheck(what, "invalid", str(error))
        else:
            found = "the signature is missing" if key is None else f"the HMAC-SHA256 with the key {key} matches"
            yield SignatureCheck(what, "invalid" if key is None else "valid", found)


def _batch_checks(
    proof: StoredProof, message: MeteringMessage | BadMessage, keys: Keyring | None
) -> Iterator[SignatureCheck]:
    batch = proof.batch
    what = "Signed batch of the message"
    if batch is None:
        yield SignatureCheck(what, "invalid", "the record of its signed batch is missing")
        return
    if keys is None:
        yield SignatureCheck(what, "not checked", NO_KEYS)
        return
    verified = verify_with_keyring(batch, keys)
    if verified is None:
        yield SignatureCheck(
            what, "not checked", f"the batch names the key {batch.key_id}, which this server does not have"
        )
        return
    yield _digest_check(proof, batch, verified.findings)
    yield _presence_check(batch, verified.findings)
    yield _batch_signature_check(verified)
    yield _permission_check(verified, message)


def _digest_check(proof: StoredProof, batch: StoredBatch, findings: BatchFindings) -> SignatureCheck:
    what = f"Digest of the message, number {proof.position} of its batch"
    compared = zip(batch.messages, findings.problems, strict=True)
    there = [(fields, problem) for (position, fields), problem in compared if position == proof.position]
    if len(there) != 1:
        return SignatureCheck(what, "invalid", f"{len(there)} stored messages have this number")
    fields, problem = there[0]
    if problem is not None:
        return SignatureCheck(what, "invalid", problem)
    stated = {name: value for name, value in proof.message.items() if name != SIGNATURE_FIELD}
    if fields is None or stated != {name: value for name, value in fields.items() if name != SIGNATURE_FIELD}:
        return SignatureCheck(what, "invalid", "the message that was compared is not the one that is shown")
    return SignatureCheck(what, "valid", "the SHA-256 digest of the message begins as the one that was signed")


def _presence_check(batch: StoredBatch, findings: BatchFindings) -> SignatureCheck:
    what = f"All {batch.count} messages of the batch"
    if findings.missing:
        count = len(findings.missing)
        return SignatureCheck(
            what, "not checked", f"{count} of them are not stored any more: they were removed or have expired"
        )
    if findings.digests is None:
        return SignatureCheck(what, "invalid", findings.damage or "other messages of the batch were altered or added")
    unstored = f"; the collector states of {len(batch.unstored)} that they were not stored" if batch.unstored else ""
    return SignatureCheck(what, "valid", f"{len(batch.messages)} are stored as they were signed{unstored}")


def _batch_signature_check(verified: KeyFindings) -> SignatureCheck:
    what = "Signature of the batch over all digests"
    match verified.findings.signature_matches:
        case True:
            return SignatureCheck(what, "valid", f"the HMAC-SHA256 with the key {verified.key.id} matches")
        case False:
            return SignatureCheck(what, "invalid", verified.findings.damage or "it does not match")
    return SignatureCheck(
        what, "not checked", "it covers the digests of all messages of the batch, and not all are known"
    )


def _permission_check(verified: KeyFindings, message: MeteringMessage | BadMessage) -> SignatureCheck:
    key = verified.key
    what = f"Permission of the key {key.id} to sign this sample"
    if "meter" not in key.schemes:
        return SignatureCheck(what, "invalid", 'its schemes do not include "meter"')
    if isinstance(message, BadMessage):
        return SignatureCheck(what, "not checked", "the message cannot be read")
    problem = key.problem(message.timestamp, message.name, message.source)
    if problem is not None:
        return SignatureCheck(what, "invalid", f"it {problem}")
    return SignatureCheck(what, "valid", "its time range, meters and sources include it")
