"""ClockRuns: after the system clock was set back, counters continue in other runs.

Samples are compared in the order of their times. With the clock an hour back, an hour of new samples stands among those of the hour
before: within one run each new volume would follow an old, lower one, and the same increase would count again and again.

What is known is kept in a file, because the runs of most counters outlive the agent's process: neither may a run that was left be continued
after a restart, nor may a clock that is set back meanwhile go unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.logger import Logger

from meter.daemon.private_files import make_private_directory
from meter.daemon.private_files import make_private_file
from meter.sample import RESERVED_METADATA
from meter.sample import Sample
from meter.sample import run_text
from meter.sample import with_reserved

TOLERATED_SECONDS = 1.0
"""A clock that is set back by less than this changes no order of polls, which are further apart."""


class ClockState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``polled_until`` is the time of the newest poll, ``set_back_at`` the time to which the clock was last set back; both by the system clock."""

    polled_until: float | None = None
    set_back_at: float | None = None


class ClockRuns:
    """Recognizes that the clock was set back between two polls. ``path`` is where the state is kept, ``run`` does file operations.

    A file that cannot be read counts as none, and one that cannot be written is logged once: polling goes on.
    """

    _log = Logger()

    def __init__(self, path: Path, run: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._path = path
        self._run = run
        self._state = self._read()
        self._failure = ""

    def begin(self, now: float) -> None:
        """Begin a poll at ``now``, by the system clock."""
        until = self._state.polled_until
        if until is not None and now < until - TOLERATED_SECONDS:
            self._log.warn(
                "the system clock was set back by at least {seconds:.0f} s: counters continue in other runs",
                seconds=until - now,
            )
            self._state = ClockState(polled_until=now, set_back_at=now)
        else:
            # Samples have this time even if the clock is set back before the poll ends.
            self._state = replace(self._state, polled_until=now if until is None else max(now, until))

    async def end(self, now: float) -> None:
        """End a poll at ``now``; return when the state is kept."""
        self._state = replace(self._state, polled_until=max(now, self._state.polled_until or now))
        try:
            await self._run(self._write)
        except OSError as error:
            if str(error) != self._failure:
                self._failure = str(error)
                self._log.error("the state of the clock cannot be kept: {error}", error=error)

    def applied(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return ``samples``, those of counters in the runs that began when the clock was last set back."""
        if self._state.set_back_at is None:
            return samples
        name = f"clock-{self._state.set_back_at:.3f}"
        # Samples share their metadata, and are cheaper to sign if they go on to do so.
        changed: dict[int, Mapping[str, Any]] = {}
        found = []
        for sample in samples:
            if sample.type == "cumulative":
                key = id(sample.resource_metadata)
                if key not in changed:
                    changed[key] = _in_run(sample.resource_metadata, name)
                sample = replace(sample, resource_metadata=changed[key])
            found.append(sample)
        return found

    def _read(self) -> ClockState:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=ClockState)
        except FileNotFoundError:
            return ClockState()
        except (OSError, msgspec.DecodeError) as error:
            self._log.warn("{path} is not the state of the clock: {error}", path=str(self._path), error=error)
            return ClockState()

    def _write(self) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        make_private_directory(new.parent)
        make_private_file(new)
        new.write_bytes(msgspec.json.encode(self._state))
        os.replace(new, self._path)


def _in_run(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    reserved = metadata.get(RESERVED_METADATA)
    run = reserved.get("run") if isinstance(reserved, Mapping) else None
    return with_reserved(metadata, run=run_text(run, name) if isinstance(run, str) and run else name)
