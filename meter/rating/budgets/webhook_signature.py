"""Signatures of webhooks by the Standard Webhooks convention: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64


def webhook_keys(secrets: str) -> Sequence[bytes]:
    """Return the keys in ``secrets``: one, or several with spaces between them while a receiver changes from one to another.

    :raises ValueError: one is not ``whsec_`` and the base64 of 24 to 64 bytes. The text does not contain it.
    """
    keys = [_key(each) for each in secrets.split()]
    if not keys:
        raise ValueError("a webhook needs a secret")
    return keys


def _key(secret: str) -> bytes:
    wanted = f'a secret of webhooks must be "{PREFIX}" and the base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes'
    if not secret.startswith(PREFIX):
        raise ValueError(f"{wanted}; this one does not begin so")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{wanted}; this one is not base64") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(f"{wanted}; this one has {len(key)}")
    return key


def signature_headers(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that sign ``body``, with a signature by each of ``keys``; ``timestamp`` is that of the attempt."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }
