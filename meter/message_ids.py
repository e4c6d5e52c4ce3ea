"""Message ids: UUIDs of version 7 (RFC 9562), of single samples and of the samples of a poll.

docs/decisions/0019-message-ids.rst says why they are made so, and what somebody who knows some can do with them.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable

MAX_ORDINALS = 2**24
"""Maximum number of samples that share the time in their ids."""

MAX_EARLY_MILLISECONDS = 2**16
"""The time in the ids of a poll is by less than this, about a minute, earlier than the poll."""

MAX_KEPT_NUMBERS = 2**16
"""Numbers that are kept as text, 55 bytes each: to make one again takes a microsecond."""

_HALF = 2**12


def new_message_id() -> str:
    """Return a new UUID of version 7: milliseconds since 1970 and 74 random bits.

    Ids made at about the same time are adjacent in the store's index, which keeps it small and its writes local. Nothing
    else uses the time in it, so the system clock is good enough. Python has ``uuid.uuid7`` from 3.14 on.
    """
    return f"{_beginning(time.time_ns() // 1_000_000, os.urandom(7))}{os.urandom(3).hex()}"


def _beginning(milliseconds: int, random: bytes) -> str:
    """Return the first 13 bytes of an id: its time, and 50 bits of ``random``, which has 7 bytes."""
    millis, drawn = f"{milliseconds:012x}", random.hex()
    return f"{millis[:8]}-{millis[8:]}-7{drawn[:3]}-{'89ab'[int(drawn[3], 16) & 3]}{drawn[4:7]}-{drawn[7:13]}"


class PollIds:
    """Gives ids to the samples of one pollster, poll by poll, so that the ids of a series compress.

    The first 6 bytes of an id are the same for all samples of a poll, and greater than those of the poll before. The others
    are the same for the n-th sample of every poll: bits that were drawn at random, and in the last 3 bytes a number that
    stands for n. The time in an id is up to :data:`MAX_EARLY_MILLISECONDS` earlier than the poll, at random, and the numbers
    are in a secret order, so that nobody can tell the id of another sample from those that are known. ``milliseconds``
    returns the time, since 1970.
    """

    def __init__(
        self,
        milliseconds: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._milliseconds = milliseconds
        self._random = random
        self._process = 0
        self._time = -1
        self._ordinal = MAX_ORDINALS  # no poll has begun

    def begin(self) -> None:
        """Begin the ids of a poll."""
        now = self._milliseconds()
        if self._process != os.getpid() or now <= self._time:  # a fork has the same bits, and a clock can be set back
            self._draw()
        earliest = max(self._time + 1, now - MAX_EARLY_MILLISECONDS + 1, 0)
        self._time = earliest + int.from_bytes(self._random(4)) % max(1, now - earliest + 1)
        self._beginning = _beginning(self._time, self._drawn)
        self._ordinal = 0

    def next(self) -> str:
        """Return the id of the next sample of the poll."""
        ordinal = self._ordinal
        if ordinal == MAX_ORDINALS:
            self.begin()
            ordinal = 0
        self._ordinal = ordinal + 1
        if ordinal >= len(self._numbers):
            if ordinal >= MAX_KEPT_NUMBERS:
                return f"{self._beginning}{self._number(ordinal)}"
            self._numbers.append(self._number(ordinal))
        return self._beginning + self._numbers[ordinal]

    def _number(self, ordinal: int) -> str:
        """Return the number that stands for the place of a sample, as six hexadecimal digits."""
        # A Feistel network over secret tables: every ordinal has another number, and only the tables tell which.
        high, low = divmod(ordinal, _HALF)
        first, second, third = self._tables
        high ^= first[low]
        low ^= second[high]
        high ^= third[low]
        return f"{high:03x}{low:03x}"

    def _draw(self) -> None:
        self._process = os.getpid()
        self._time = -1
        self._drawn = self._random(7)
        self._numbers: list[str] = []
        self._tables = tuple(
            array("H", [each % _HALF for each in array("H", self._random(2 * _HALF))]) for _ in range(3)
        )
