"""The times at which an expression is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from meter.api.prometheus.syntax import SelectorNode


@dataclass(frozen=True, slots=True)
class EvaluationTimes:
    """Times of evaluation in seconds since 1970: ``count`` of them from ``start``, every ``step`` seconds."""

    start: float
    step: float
    count: int

    @property
    def all(self) -> list[float]:
        """All times."""
        return [self.start + number * self.step for number in range(self.count)]

    @property
    def end(self) -> float:
        """The last time."""
        return self.start + (self.count - 1) * self.step


def selected_times(node: SelectorNode, times: EvaluationTimes) -> EvaluationTimes:
    """Return the times that a selector is about: shifted by its offset, or the one of its ``@``."""
    if node.at is None:
        return EvaluationTimes(times.start - node.offset, times.step, times.count)
    at = {"start": times.start, "end": times.end}.get(node.at) if isinstance(node.at, str) else node.at
    assert at is not None
    return EvaluationTimes(at - node.offset, times.step, 1)
