"""Evaluation of an expression in PromQL, at one time or at every step of a range."""

from __future__ import annotations

from meter.api.prometheus.results import PromqlAnswer
from meter.api.prometheus.source import PromqlSource


async def evaluate_instant(expression: str, time: float, source: PromqlSource) -> PromqlAnswer:
    """Return the value of ``expression`` at ``time``. Raises :class:`~meter.api.prometheus.results.PromqlError`."""
    raise NotImplementedError


async def evaluate_range(expression: str, start: float, end: float, step: float, source: PromqlSource) -> PromqlAnswer:
    """Return the values of ``expression``, a matrix, from ``start`` through ``end`` at every ``step`` seconds.

    Raises :class:`~meter.api.prometheus.results.PromqlError`.
    """
    raise NotImplementedError
