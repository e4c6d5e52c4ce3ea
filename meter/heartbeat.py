"""The heartbeat, a daemon's report of its state, once a minute. The last one of each daemon is kept."""

from __future__ import annotations

from typing import Any

import msgspec

from meter.message import BadMessage

HEARTBEAT_SECONDS = 60.0


class DependencyState(msgspec.Struct, frozen=True):
    """A dependency of the daemon, as ``/readyz`` shows it."""

    name: str
    ready: bool
    reason: str


class SpoolState(msgspec.Struct, frozen=True):
    """The spool of an agent: messages, bytes, their limit, age of the oldest message, and free bytes on its disk."""

    messages: int
    bytes: int
    max_bytes: int
    oldest_seconds: float
    free_bytes: int | None = None


class Heartbeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a daemon. ``name`` is ``daemon@host``; ``clock`` its time in UTC when it was made, as text.

    ``key_ids`` are the ids of the signing keys in order of preference, each with a fingerprint of the secret, so that daemons
    whose keys differ are found. ``last_error`` is the last error that it logged, masked, at most 500 characters.
    """

    name: str
    daemon: str
    host: str
    boot: str
    sequence: int
    version: str
    started_at: str
    clock: str
    status_address: str = ""
    key_ids: tuple[tuple[str, str], ...] = ()
    last_error: str = ""
    last_error_at: str = ""
    dependencies: tuple[DependencyState, ...] = ()
    spool: SpoolState | None = None
    stopping: bool = False
    """Whether the daemon stops: this is its last heartbeat until it starts again."""


def heartbeat(content: Any) -> Heartbeat:
    """Return the heartbeat that is the content of a verified report; raises :class:`~meter.message.BadMessage`."""
    try:
        return msgspec.convert(content, Heartbeat)
    except msgspec.ValidationError as error:
        raise BadMessage(f"not a heartbeat: {error}") from error
