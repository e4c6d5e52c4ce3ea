"""Reports: what Meter's daemons state about their own work, each signed by itself, beside the samples on the bus.

A *cycle report* (:mod:`meter.cycle_report`) says what an agent polled, a *heartbeat* (:mod:`meter.heartbeat`) that a daemon runs,
an *identity report* (:mod:`meter.identity_report`) which names projects, domains and users have. A report is a cast with a
method of its own and the routing key ``report.<kind>``: consumers of ``metering.#`` do not receive it.

The signature is HMAC-SHA-256 over the sorted MessagePack of the report, with a key that is derived from the shared secret for
this kind of report alone. docs/keys.rst describes it for other implementations.
"""

from __future__ import annotations

import binascii
import functools
import hmac
import uuid
from base64 import b64decode
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from typing import Literal
from typing import NamedTuple

import msgspec

from meter.batch_signature import derive_key
from meter.ceilometer_signature import BadSignature
from meter.interfaces import Publication
from meter.message import BadMessage
from meter.message import open_envelope
from meter.message import seal
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey

ReportKind = Literal["cycle", "heartbeat", "identities"]

REPORT_EXCHANGE = "metering"

REPORT_SIGNATURE_FIELD = "_meter_report_signature"
"""The member of a cast with the signature of its report."""

VERSION = 1

MAX_REPORT_BYTES = 8 * 1024 * 1024

_canonical = msgspec.msgpack.Encoder(order="sorted").encode


class VerifiedReport(NamedTuple):
    """A report whose signature was verified. ``content`` is a mapping; ``mac`` identifies it; ``key_id`` is the key's id here."""

    kind: ReportKind
    content: Mapping[str, Any]
    mac: bytes
    key_id: str


def method_of(kind: ReportKind) -> str:
    """Return the method of a cast with a report of this kind."""
    return f"record_{kind}_report"


def report_publication(kind: ReportKind, content: msgspec.Struct, key: SigningKey) -> Publication:
    """Return the publication of a report, signed with ``key``."""
    members = msgspec.to_builtins(content)
    return Publication(
        exchange=REPORT_EXCHANGE,
        routing_key=f"report.{kind}",
        body=seal(
            {
                "method": method_of(kind),
                "version": "1.0",
                "args": {"report": members},
                "_unique_id": uuid.uuid4().hex,
                REPORT_SIGNATURE_FIELD: {
                    "version": VERSION,
                    "key_id": key.id,
                    "mac": b64encode(report_mac(kind, members, key.secret)).decode(),
                },
            }
        ),
        headers={"meter-samples": 0},
    )


def report_mac(kind: ReportKind, members: Mapping[str, Any], secret: bytes) -> bytes:
    """Return the signature of a report, 32 bytes; raises :class:`~meter.ceilometer_signature.BadSignature`."""
    try:
        return hmac.digest(_key(secret, kind), _canonical([VERSION, kind, members]), "sha256")
    except (UnicodeEncodeError, RecursionError, TypeError, ValueError, OverflowError) as error:
        raise BadSignature(f"the report cannot be signed: {error}") from error


@functools.lru_cache(maxsize=256)
def _key(secret: bytes, kind: str) -> bytes:
    return derive_key(secret, f"meter {kind} report 1".encode())


def read_report(body: bytes, keys: Keyring) -> VerifiedReport:
    """Return the verified report in ``body``.

    The key that the signature names is tried first, then the others with the scheme *meter*. Raises
    :class:`~meter.message.BadMessage` or :class:`~meter.ceilometer_signature.BadSignature`.
    """
    if len(body) > MAX_REPORT_BYTES:
        raise BadMessage(f"a report has at most {MAX_REPORT_BYTES} bytes, not {len(body)}")
    content = open_envelope(body)
    kind = _kind(content.get("method"))
    arguments = content.get("args")
    members = arguments.get("report") if isinstance(arguments, Mapping) else None
    if not isinstance(members, Mapping):
        raise BadMessage(f"{content['method']} must have a mapping as its argument report")
    key_id, mac = _signature(content.get(REPORT_SIGNATURE_FIELD))
    for key in keys.preferring(key_id):
        if "meter" in key.schemes and hmac.compare_digest(report_mac(kind, members, key.secret), mac):
            return VerifiedReport(kind, members, mac, key.id)
    raise BadSignature(f"the signature of the report matches no key of [signing]; it names the key {key_id!r:.80}")


def _kind(method: Any) -> ReportKind:
    kinds: tuple[ReportKind, ...] = ("cycle", "heartbeat", "identities")
    for kind in kinds:
        if method == method_of(kind):
            return kind
    raise BadMessage(f"not a report: the method must be record_(cycle|heartbeat|identities)_report, not {method!r:.80}")


def _signature(value: Any) -> tuple[str, bytes]:
    if not isinstance(value, Mapping):
        raise BadSignature(f"the report is not signed: {REPORT_SIGNATURE_FIELD} must be a mapping")
    if value.get("version") != VERSION:
        raise BadSignature(f"{REPORT_SIGNATURE_FIELD} must have version {VERSION}, not {value.get('version')!r:.40}")
    key_id, mac = value.get("key_id"), value.get("mac")
    if not isinstance(key_id, str) or not isinstance(mac, str) or len(mac) > 64:
        raise BadSignature(f"key_id and mac of {REPORT_SIGNATURE_FIELD} must be texts")
    try:
        return key_id, b64decode(mac, validate=True)
    except (binascii.Error, ValueError):
        raise BadSignature(f"mac of {REPORT_SIGNATURE_FIELD} must be base64") from None
