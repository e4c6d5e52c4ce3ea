"""Long computations in steps: at once, or in slices between which the reactor runs."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from meter.completeness.lives.resource_lives import Pausing

T = TypeVar("T")

Steps = Generator[None, None, T]
"""A computation that yields after each small step, and returns its result."""


def at_once(steps: Steps[T]) -> T:
    """Return the result of ``steps``."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


async def in_slices(steps: Steps[T], slices: Pausing | None) -> T:
    """Return the result of ``steps``, with pauses whenever a slice is over; ``None``: without pauses."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if slices is not None and slices.over:
            await slices.pause()
