"""The destination of the samples in a spool: a virtual host of a broker, and the keys that sign the samples.

A spool that was filled for another destination is not sent to this one unless the operator allows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from meter.signing_keys import SigningKey

PLAIN_AND_TLS = {5671: 5672}
"""The TLS port of RabbitMQ counts as the one without TLS: enabling TLS does not change the destination."""


class Destination(msgspec.Struct, frozen=True):
    """A broker and the signing keys. ``keys`` are fingerprints; ``own_key``: the key was generated on this host."""

    host: str
    port: int
    vhost: str
    keys: tuple[str, ...]
    own_key: bool = False

    def difference(self, other: Destination) -> str | None:
        """Return how ``other`` differs, as text; ``None`` if it is the same destination.

        Users and passwords are not compared. A key that was added, or one of several that was removed, makes no difference. Another host name
        with the same port, virtual host and key is the same cluster, unless the key was generated on this host, which
        says nothing about the broker.
        """
        if self.vhost != other.vhost or _port(self.port) != _port(other.port):
            return f"the broker {self.described} instead of {other.described}"
        if self.host != other.host and (self.own_key or other.own_key):
            return f"the broker {self.described} instead of {other.described}"
        if not set(self.keys) & set(other.keys):
            return "another signing key"
        return None

    @property
    def described(self) -> str:
        """The broker as text, without user and password."""
        return f"{self.host}:{self.port}, virtual host {self.vhost}" if self.port else "within the process"


def fingerprints(keys: Iterable[SigningKey]) -> tuple[str, ...]:
    """Return fingerprints of the keys."""
    return tuple(sorted(sha256(b"meter spool\0" + key.secret).hexdigest()[:16] for key in keys))


def encoded(destination: Destination) -> str:
    """Return ``destination`` as JSON, as a spool stores it."""
    return msgspec.json.encode(destination).decode()


def decoded(text: str) -> Destination | None:
    """Return the destination from JSON; ``None`` for any other text."""
    try:
        return msgspec.json.decode(text, type=Destination)
    except msgspec.DecodeError:
        return None


def _port(port: int) -> int:
    return PLAIN_AND_TLS.get(port, port)
