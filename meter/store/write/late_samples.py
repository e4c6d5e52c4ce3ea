"""Counts samples that are recorded long after they were measured, by hour and series, while they are inserted.

A batch without a sample of that age is inserted as always: counting costs nothing then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

COUNT_LATE = """
INSERT INTO late_sample AS counted (start, series_id, samples, max_seconds)
SELECT date_trunc('hour', timestamp, 'UTC'), series_id, count(*), max(extract(epoch FROM recorded_at - timestamp))
FROM stored
WHERE recorded_at - timestamp > make_interval(secs => %s)
    AND (%s OR EXISTS (SELECT FROM series x WHERE x.id = stored.series_id AND x.polling_interval > 0))
GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (start, series_id) DO UPDATE SET samples = counted.samples + excluded.samples,
    max_seconds = greatest(counted.max_seconds, excluded.max_seconds)
"""
"""Counts the late ones of the rows ``stored``; its parameters are those of :attr:`LateSamples.parameters`."""

MARGIN_SECONDS = 300.0
"""How much the clocks of collector and database may differ."""


@dataclass(frozen=True, slots=True)
class LateSamples:
    """Samples recorded more than ``after_seconds`` after their timestamp are late; of pollsters, or with ``every`` all."""

    after_seconds: float = 3600.0
    every: bool = False

    @property
    def parameters(self) -> list[float | bool]:
        """The parameters of :data:`COUNT_LATE`."""
        return [self.after_seconds, self.every]

    def possible(self, oldest: datetime, now_seconds: float) -> bool:
        """Return whether a batch may have late samples; ``now_seconds`` is the time of the collector's clock since 1970."""
        margin = min(MARGIN_SECONDS, self.after_seconds / 2)
        return oldest.timestamp() < now_seconds - self.after_seconds + margin
