"""Outgoing metering messages: makes messages of samples, with Ceilometer's signature, and chooses the key of their batch."""

from __future__ import annotations

import _hashlib
import functools
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from meter.batch_signature import canonical_form_of_members
from meter.batch_signature import digest_of_encoded_metadata
from meter.ceilometer_reading import has_second_reading
from meter.ceilometer_signature import METADATA_FIELD
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import encoded_metadata
from meter.ceilometer_signature import signature
from meter.ceilometer_signature import signed_bytes_of_sample
from meter.message import escaped_json
from meter.message import escaped_json_of_sample
from meter.message_ids import new_message_id
from meter.sample import Sample
from meter.sample import utc_text
from meter.sample import with_reserved
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey


class OutgoingMessage(msgspec.Struct, frozen=True, gc=False):
    """A metering message that is to be published, and the key that is to sign its batch; ``None`` for an unsigned batch.

    ``canonical_form`` is what :func:`meter.batch_signature.canonical_form` returns for ``fields``, and ``escaped_json`` what
    :func:`meter.message.escaped_json` for them, if they are known. The garbage collector does not look at it.
    """

    fields: Mapping[str, Any]
    key: SigningKey | None
    canonical_form: bytes | None = None
    escaped_json: str | None = None


def sign(sample: Sample, keys: Keyring, source: str) -> dict[str, Any]:
    """Return ``sample`` as a metering message with Ceilometer's signature; ``source`` is that of a sample without one.

    Meter's own messages are made by :class:`Signer`.
    """
    message = _unsigned(sample, source)
    key = keys.key_for(sample.timestamp, sample.name, message["source"])
    message[SIGNATURE_FIELD] = signature(message, key.secret)
    return message


def _unsigned(sample: Sample, source: str) -> dict[str, Any]:
    return {
        "source": sample.source or source,
        "counter_name": sample.name,
        "counter_type": sample.type,
        "counter_unit": sample.unit,
        "counter_volume": sample.volume,
        "user_id": sample.user_id,
        "project_id": sample.project_id,
        "resource_id": sample.resource_id,
        "timestamp": utc_text(sample.timestamp),
        "resource_metadata": sample.resource_metadata,
        "message_id": sample.message_id or new_message_id(),
    }


class Signer:
    """Makes signed messages of the samples of one batch. Metadata that several samples share as one object are encoded once.

    It keeps a reference to all metadata it has seen: use one per batch, and do not mutate the metadata while it is in use.
    ``interval_seconds``, for polled samples, and ``may_differ``, if not empty, are added to the reserved member of the
    metadata. ``unit_name`` returns the configured name of a unit. Samples that a client has chosen are ``untrusted``: they get
    Ceilometer's signature only if :func:`meter.ceilometer_reading.check_reading` accepts them. ``new_id`` returns the id of the
    next sample that has none.
    """

    def __init__(
        self,
        keys: Keyring,
        source: str,
        *,
        interval_seconds: float | None = None,
        unit_name: Callable[[str], str] | None = None,
        may_differ: Sequence[str] = (),
        untrusted: bool = False,
        new_id: Callable[[], str] = new_message_id,
    ) -> None:
        self._keys = keys
        self._source = source
        self._unit_name = unit_name
        self._untrusted = untrusted
        self._new_id = new_id
        self._reserved: dict[str, Any] = {}
        if interval_seconds is not None:
            self._reserved["interval"] = _whole_if_possible(interval_seconds)
        if may_differ:
            self._reserved["may_differ"] = list(may_differ)
        self._ceilometer = keys.ceilometer_signature
        self._encoded: dict[int, tuple[Mapping[str, Any], bytes, msgspec.Raw, str, str]] = {}
        # The samples of a poll have their time in common, or those of a resource do.
        self._times: dict[int, tuple[datetime, str]] = {}

    def message(self, sample: Sample, message_id: str | None = None) -> OutgoingMessage:
        """Return ``sample`` as a metering message, with its metadata already encoded as JSON.

        ``message_id`` replaces that of the sample; a sample without one gets a new one. The message has Ceilometer's signature if the keyring makes it. Raises
        :class:`~meter.ceilometer_signature.BadSignature` if no key may sign the sample, or if it is not JSON.
        """
        metadata = sample.resource_metadata
        found = self._encoded.get(id(metadata))
        if found is None:
            complete = with_reserved(metadata, **self._reserved) if self._reserved else metadata
            encoded, text = encoded_metadata(complete)
            digest = digest_of_encoded_metadata(bytes(encoded))
            found = self._encoded[id(metadata)] = (metadata, digest, encoded, text, escaped_json(encoded))
        _, digest, encoded, text, escaped = found
        timestamp = sample.timestamp
        known = self._times.get(id(timestamp))
        if known is None:
            known = self._times[id(timestamp)] = (timestamp, utc_text(timestamp))
        source = sample.source or self._source
        # In the order of the canonical form.
        message: dict[str, Any] = {
            "counter_name": sample.name,
            "counter_type": sample.type,
            "counter_unit": sample.unit if self._unit_name is None else self._unit_name(sample.unit),
            "counter_volume": sample.volume,
            "message_id": message_id or sample.message_id or self._new_id(),
            "project_id": sample.project_id,
            "resource_id": sample.resource_id,
            METADATA_FIELD: digest,
            "source": source,
            "timestamp": known[1],
            "user_id": sample.user_id,
        }
        key = self._keys.key_for(timestamp, sample.name, source)
        covered = signed_bytes_of_sample(message, text)  # raises for values that are not JSON
        canonical = canonical_form_of_members(message)
        message[METADATA_FIELD] = encoded
        if self._ceilometer and not (self._untrusted and has_second_reading({**message, METADATA_FIELD: metadata})):
            mac = _mac_of(key.secret).copy()
            mac.update(covered)
            message[SIGNATURE_FIELD] = mac.hexdigest()
        return OutgoingMessage(message, key, canonical, escaped_json_of_sample(message, escaped))


@functools.lru_cache(maxsize=256)
def _mac_of(secret: bytes) -> _hashlib.HMAC:
    """Return an HMAC that has taken ``secret``: copying it is faster than making another one for each message.

    It is that of OpenSSL, which :mod:`hmac` wraps: to copy the wrapper takes as long as the HMAC.
    """
    return _hashlib.hmac_new(secret, digestmod="sha256")


def _whole_if_possible(seconds: float) -> float:
    return int(seconds) if float(seconds).is_integer() else seconds
