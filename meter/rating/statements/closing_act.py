"""Who closes, and what became of an account."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meter.rating.statements.closing_problems import ClosingProblem
from meter.rating.statements.statement import SignedStatement
from meter.signing_keys import SigningKey

Result = Literal["closed", "already closed", "nothing to bill", "refused", "waits for others"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingAct:
    """Who closes, with which key. ``accept_gaps`` is why the period is closed although something is missing, "" to refuse it.

    With ``audit_keys`` each close is recorded in the audit log. ``each_for_itself``: accounts are closed although others are refused.
    ``public_keys``, by id, are those that signed stored statements, beside that of ``key``.
    """

    key: Ed25519PrivateKey
    closed_by: str
    accept_gaps: str = ""
    audit_keys: Sequence[SigningKey] = ()
    audit_details: Mapping[str, Any] = field(default_factory=dict)
    each_for_itself: bool = False
    public_keys: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountResult:
    """What became of an account. ``signed`` is its closed statement, ``problems`` are why there is none."""

    account_id: str
    period: str
    result: Result
    signed: SignedStatement | None = None
    problems: tuple[ClosingProblem, ...] = ()
