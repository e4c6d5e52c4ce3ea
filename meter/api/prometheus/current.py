"""Which sample of a series is the newest one at each time, and whether it is current."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meter.api.prometheus.grid import Column
from meter.api.prometheus.times import EvaluationTimes


class FoundSample(NamedTuple):
    """The newest sample before the time of evaluation with this ``number``, and since the time before.

    ``time`` is in seconds since 1970; for ``validity`` seconds the sample is current, unless it is followed by another one.
    """

    number: int
    time: float
    volume: float
    validity: float


def carried(found: Sequence[FoundSample], times: EvaluationTimes) -> tuple[Column, Column]:
    """Return the values and times of the newest samples at each time; no value where it is too old.

    ``found`` is in the order of its fields.
    """
    values: Column = []
    sample_times: Column = []
    position = -1
    for number in range(times.count):
        while position + 1 < len(found) and found[position + 1].number <= number:
            position += 1
        if position >= 0:
            sample = found[position]
            is_valid = times.start + number * times.step - sample.time <= sample.validity
            values.append(sample.volume if is_valid else None)
            sample_times.append(sample.time)
        else:
            values.append(None)
            sample_times.append(None)
    return values, sample_times


def keep_newest(variants: Sequence[tuple[Column, Column]]) -> None:
    """Remove, at each time, the values whose samples are older than the newest of all ``variants``."""
    for number, row in enumerate(zip(*(sample_times for _, sample_times in variants), strict=True)):
        newest = max((time for time in row if time is not None), default=None)
        for (values, _), time in zip(variants, row, strict=True):
            if time is not None and newest is not None and time < newest:
                values[number] = None
