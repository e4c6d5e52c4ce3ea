"""The public keys of statements as an API hands them out: read from their directory, and again when they may have changed."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from twisted.internet.interfaces import IReactorTime

from meter.interfaces import Unavailable
from meter.rating.statements.statement_keys import StatementKey
from meter.rating.statements.statement_keys import listed
from meter.rating.statements.statement_keys import read_public_keys

MAX_AGE_SECONDS = 60.0
"""How long after a rotation the new key may be missing."""


class PublishedKeys:
    """The public keys in a file or directory; none if ``path`` is ``None``."""

    def __init__(self, path: Path | None, clock: IReactorTime) -> None:
        self._path = path
        self._clock = clock
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._read_at: float | None = None

    def keys(self) -> Sequence[StatementKey]:
        """Return the keys in the order of their ids; ``Unavailable`` if they cannot be read."""
        return listed(self.by_id())

    def by_id(self) -> Mapping[str, Ed25519PublicKey]:
        """Return the keys by id; ``Unavailable`` if they cannot be read."""
        if self._path is None:
            return {}
        now = self._clock.seconds()
        if self._read_at is None or not 0 <= now - self._read_at < MAX_AGE_SECONDS:
            try:
                self._keys = read_public_keys(self._path)
            except ValueError as error:
                raise Unavailable("The public keys of statements cannot be read.") from error
            self._read_at = now
        return self._keys
