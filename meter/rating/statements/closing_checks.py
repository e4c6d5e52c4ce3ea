"""What a close checks of documents, those that it stores and those that are stored, and what it makes of an account that failed."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from twisted.logger import Logger
from twisted.python.failure import Failure

from meter.interfaces import Unavailable
from meter.rating.statements.closing_problems import ClosingProblem
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement_keys import key_id_of
from meter.rating.statements.statement_store import NotFollowing
from meter.rating.statements.verification import verify_document

_log = Logger()


class AccountChanged(Exception):
    """The usage of an account changed while it was closed: nothing was stored."""


def failed_checks(signed: SignedStatement, key: Ed25519PrivateKey) -> tuple[ClosingProblem, ...]:
    """Return what a reader of the statement would find wrong: numbers that are out of bounds, for example."""
    checks = verify_document(signed_document(signed), {signed.key_id: key.public_key()})
    return tuple(
        ClosingProblem("does not verify", f"{each.name}: {each.text}") for each in checks if each.outcome == "failed"
    )


def distrusted(
    signed: SignedStatement | None,
    expected_id: str,
    key: Ed25519PrivateKey,
    public_keys: Mapping[str, Ed25519PublicKey],
) -> list[ClosingProblem]:
    """Return why a stored statement is not one that a close has made: the database's owner can insert any."""
    if signed is None:
        return []
    public = key.public_key()
    checks = verify_document(signed_document(signed), {**public_keys, key_id_of(public): public})
    found = [each.text for each in checks if each.name == "signature" and each.outcome != "passed"]
    if signed.statement.statement_id != expected_id:
        found.append(f"its document is that of {signed.statement.statement_id!r:.200}")
    text = f"{expected_id} is stored, but does not verify: "
    return [ClosingProblem("stored statement does not verify", text + each) for each in found]


def failed(fault: Exception) -> ClosingProblem:
    """Return that the close of one account failed, so that the others are closed; a store that is away ends the close."""
    if isinstance(fault, NotFollowing | AccountChanged):
        return ClosingProblem("account changed", str(fault))
    if isinstance(fault, Unavailable):
        raise fault
    _log.failure("the close of an account failed", failure=Failure(fault))
    return ClosingProblem("close failed", f"{type(fault).__name__}: {fault}")
