"""The bars of arriving samples: how many were stored in each part of the last minutes, which a script keeps moving."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.completeness.activity import Arrivals

BAR_SECONDS = 10
BARS = 60
ARRIVALS_TIME = timedelta(seconds=BAR_SECONDS * BARS)

HEIGHT = 100.0
"""Height of the highest bar in the units of the drawing."""


@dataclass(frozen=True, slots=True)
class ArrivalBar:
    """A part of the time from ``start`` on: its number of samples, ``None`` where it is unknown, and its place in the drawing."""

    start: datetime
    samples: int | None
    x: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class ArrivalBars:
    """The bars, oldest first, the last one of the time that is not over; ``most`` is the highest number."""

    bars: tuple[ArrivalBar, ...]
    most: int
    samples: int
    seconds: int = BAR_SECONDS

    @property
    def start(self) -> datetime:
        """When the first bar begins."""
        return self.bars[0].start


def arrival_bars(arrivals: Arrivals, now: datetime) -> ArrivalBars:
    """Return the bars of the time up to ``now``; what was before the first sample that was counted is unknown."""
    counts = dict(arrivals.counts)
    last = datetime.fromtimestamp(now.timestamp() // BAR_SECONDS * BAR_SECONDS, UTC)
    starts = [last - timedelta(seconds=BAR_SECONDS * n) for n in range(BARS - 1, -1, -1)]
    known = arrivals.since - timedelta(seconds=BAR_SECONDS)
    numbers = [counts.get(start, 0) if start > known else None for start in starts]
    most = max((number or 0 for number in numbers), default=0)
    bars = []
    for x, (start, samples) in enumerate(zip(starts, numbers, strict=True)):
        height = round(HEIGHT * (samples or 0) / most, 2) if most else 0.0
        bars.append(ArrivalBar(start, samples, x, round(HEIGHT - height, 2), height))
    return ArrivalBars(tuple(bars), most, sum(number or 0 for number in numbers))
