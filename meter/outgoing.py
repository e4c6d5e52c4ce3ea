"""Outgoing metering messages: makes messages of samples, with Ceilometer's signature, and chooses the key of their batch."""

from __future__ import annotations

import _hashlib
import functools
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec

from meter.batch_signature import MAP_OF_ELEVEN
from meter.batch_signature import canonical_members
from meter.batch_signature import digest_of_encoded_metadata
from meter.ceilometer_reading import has_second_reading
from meter.ceilometer_signature import METADATA_FIELD
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import encoded_metadata
from meter.ceilometer_signature import signature
from meter.ceilometer_signature import signed_text
from meter.message import escaped_json
from meter.message import escaped_text
from meter.message import is_plain
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
    """Makes signed messages of the samples of one batch. What samples have in common is encoded once: the metadata that they share as
    one object, their owner and time, and the names of each meter.

    It keeps a reference to all metadata it has seen: use one per batch, and do not mutate the metadata while it is in use.
    ``interval_seconds``, for polled samples, and ``may_differ``, if not empty, are added to the reserved member of the
    metadata. ``unit_name`` returns the configured name of a unit. Samples that a client has chosen are ``untrusted``: they get
    Ceilometer's signature only if :func:`meter.ceilometer_reading.check_reading` accepts them. ``new_id`` returns the id of the
    next sample that has none. ``encode`` encodes metadata as JSON; one may mask what it finds in them.
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
        encode: Callable[[Mapping[str, Any]], bytes] = msgspec.json.encode,
    ) -> None:
        self._keys = keys
        self._source = source
        self._unit_name = unit_name
        self._untrusted = untrusted
        self._new_id = new_id
        self._encode = encode
        self._reserved: dict[str, Any] = {}
        if interval_seconds is not None:
            self._reserved["interval"] = _whole_if_possible(interval_seconds)
        if may_differ:
            self._reserved["may_differ"] = list(may_differ)
        self._ceilometer = keys.ceilometer_signature
        self._metadata: dict[int, _Metadata] = {}
        self._commons: dict[tuple[Any, ...], _Common] = {}

    def message(self, sample: Sample, message_id: str | None = None) -> OutgoingMessage:
        """Return ``sample`` as a metering message, with its metadata already encoded as JSON.

        ``message_id`` replaces that of the sample; a sample without one gets a new one. The message has Ceilometer's signature if the keyring makes it. Raises
        :class:`~meter.ceilometer_signature.BadSignature` if no key may sign the sample, or if it is not JSON.
        """
        name, kind, volume = sample.name, sample.type, sample.volume
        unit = sample.unit if self._unit_name is None else self._unit_name(sample.unit)
        resource_id, project_id, user_id = sample.resource_id, sample.project_id, sample.user_id
        # The samples of a poll have their time in common, or those of a resource do. Both objects are kept, so no other has the id.
        place = (id(sample.resource_metadata), id(sample.timestamp), resource_id, project_id, user_id, sample.source)
        common = self._commons.get(place)
        if common is None:
            common = self._commons[place] = self._common(sample)
        message_id = message_id or sample.message_id or self._new_id()
        metadata = common.metadata
        # In the order of the canonical form.
        message: dict[str, Any] = {
            "counter_name": name,
            "counter_type": kind,
            "counter_unit": unit,
            "counter_volume": volume,
            "message_id": message_id,
            "project_id": project_id,
            "resource_id": resource_id,
            METADATA_FIELD: metadata.json,
            "source": common.source,
            "timestamp": common.timestamp,
            "user_id": user_id,
        }
        key = self._keys.key_for(sample.timestamp, name, common.source)
        head = _head(name, kind, unit)
        own = canonical_members({"counter_volume": volume, "message_id": message_id})
        signature_json = ""
        if self._ceilometer and not (
            self._untrusted and has_second_reading({**message, METADATA_FIELD: common.sample.resource_metadata})
        ):
            mac = _mac_of(key.secret).copy()
            mac.update(
                b"".join(
                    (head.signed, signed_text(volume, message_id), common.signed, metadata.signed, common.signed_end)
                )
            )
            signature = mac.hexdigest()
            message[SIGNATURE_FIELD] = signature
            signature_json = f',\\"{SIGNATURE_FIELD}\\":\\"{signature}\\"'
        if head.json and common.json and is_plain(message_id) and type(volume) in (int, float):
            escaped = (
                f'{head.json}{volume!r},\\"message_id\\":\\"{message_id}\\",'
                f"{common.json}{metadata.escaped}{common.json_end}{signature_json}}}"
            )
        else:
            escaped = escaped_json(message)
        return OutgoingMessage(message, key, head.canonical + own + common.canonical, escaped)

    def _common(self, sample: Sample) -> _Common:
        """Return what ``sample`` has in common with others of the same resource."""
        metadata = self._metadata.get(id(sample.resource_metadata))
        if metadata is None:
            metadata = self._metadata[id(sample.resource_metadata)] = self._encoded(sample.resource_metadata)
        resource, project, user = sample.resource_id, sample.project_id, sample.user_id
        source, timestamp = sample.source or self._source, utc_text(sample.timestamp)
        canonical = canonical_members(
            {
                "project_id": project,
                "resource_id": resource,
                METADATA_FIELD: metadata.digest,
                "source": source,
                "timestamp": timestamp,
                "user_id": user,
            }
        )
        json = json_end = ""
        if is_plain(f"{project}{resource}{source}{user}"):
            json = f'\\"project_id\\":{_quoted(project)},\\"resource_id\\":\\"{resource}\\",\\"resource_metadata\\":'
            json_end = f',\\"source\\":\\"{source}\\",\\"timestamp\\":\\"{timestamp}\\",\\"user_id\\":{_quoted(user)}'
        return _Common(
            sample,
            metadata,
            source,
            timestamp,
            canonical,
            f"project_id{project}resource_id{resource}".encode(),
            f"source{source}timestamp{timestamp}user_id{user}".encode(),
            json,
            json_end,
        )

    def _encoded(self, metadata: Mapping[str, Any]) -> _Metadata:
        complete = with_reserved(metadata, **self._reserved) if self._reserved else metadata
        encoded, text = encoded_metadata(complete, self._encode)
        return _Metadata(
            msgspec.Raw(encoded), digest_of_encoded_metadata(encoded), text.encode(), escaped_text(encoded.decode())
        )


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    """Metadata as JSON, their digest, the text that Ceilometer's signature covers of them, and the JSON as it is inside of a text."""

    json: msgspec.Raw
    digest: bytes
    signed: bytes
    escaped: str


class _Common(msgspec.Struct, frozen=True, gc=False):
    """The members after ``message_id`` of the messages of samples that have them in common with ``sample``, encoded in each form.

    ``signed`` and ``json`` end before the metadata, ``signed_end`` and ``json_end`` begin after them; ``json`` is empty if a text in
    it has characters that JSON escapes.
    """

    sample: Sample
    metadata: _Metadata
    source: str
    timestamp: str
    canonical: bytes
    signed: bytes
    signed_end: bytes
    json: str
    json_end: str


class _Head(msgspec.Struct, frozen=True, gc=False):
    """The members before ``counter_volume`` in each form; ``json`` is empty like that of :class:`_Common`."""

    canonical: bytes
    signed: bytes
    json: str


@functools.lru_cache(maxsize=1024)
def _head(name: str, kind: str, unit: str) -> _Head:
    json = ""
    if is_plain(f"{name}{unit}"):
        json = (
            f'{{\\"counter_name\\":\\"{name}\\",\\"counter_type\\":\\"{kind}\\",\\"counter_unit\\":\\"{unit}\\",'
            '\\"counter_volume\\":'
        )
    canonical = canonical_members({"counter_name": name, "counter_type": kind, "counter_unit": unit})
    signed = f"counter_name{name}counter_type{kind}counter_unit{unit}counter_volume".encode()
    return _Head(MAP_OF_ELEVEN + canonical, signed, json)


def _quoted(text: str | None) -> str:
    return "null" if text is None else f'\\"{text}\\"'


@functools.lru_cache(maxsize=256)
def _mac_of(secret: bytes) -> _hashlib.HMAC:
    """Return an HMAC that has taken ``secret``: copying it is faster than making another one for each message.

    It is that of OpenSSL, which :mod:`hmac` wraps: to copy the wrapper takes as long as the HMAC.
    """
    return _hashlib.hmac_new(secret, digestmod="sha256")


def _whole_if_possible(seconds: float) -> float:
    return int(seconds) if float(seconds).is_integer() else seconds
