"""Values of expressions at all evaluation times at once, and how label sets are cut and joined."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import PromqlError
from meter.daemon.shared_slices import OwnedSlices

Column = list[float | None]
"""The values of a series, one for each time of evaluation; ``None`` where it has none."""


@dataclass(frozen=True, slots=True)
class ScalarGrid:
    """A scalar: a number for each time."""

    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class TextGrid:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class GridSeries:
    """One series of a vector."""

    labels: Labels
    values: Column


@dataclass(frozen=True, slots=True)
class VectorGrid:
    """A vector for each time. No two series have the same labels."""

    series: list[GridSeries]


def without_name(labels: Labels) -> Labels:
    """Return ``labels`` without the name of the metric."""
    return labels[1:] if labels and labels[0][0] == METRIC_NAME else without(labels, (METRIC_NAME,))


def only(labels: Labels, names: Collection[str]) -> Labels:
    """Return those of ``labels`` that have one of ``names``."""
    return tuple(pair for pair in labels if pair[0] in names)


def without(labels: Labels, names: Collection[str]) -> Labels:
    """Return those of ``labels`` that have none of ``names``."""
    return tuple(pair for pair in labels if pair[0] not in names)


def replaced(labels: Labels, name: str, value: str) -> Labels:
    """Return ``labels`` with ``value`` for ``name``; without it if the value is empty."""
    others = without(labels, (name,))
    return tuple(sorted((*others, (name, value)))) if value else others


def selector_text(labels: Labels) -> str:
    """Return ``labels`` as in an expression, for errors."""
    inner = ", ".join(f'{name}="{value}"' for name, value in labels)
    return f"{{{inner}}}"[:500]


async def joined(series: Iterable[GridSeries], slices: OwnedSlices) -> VectorGrid:
    """Return a vector in which series with equal labels are one; :class:`PromqlError` if two have a value at one time."""
    by_labels: dict[Labels, GridSeries] = {}
    for each in series:
        if slices.over:
            await slices.pause()
        other = by_labels.get(each.labels)
        if other is not None:
            pairs = list(zip(other.values, each.values, strict=True))
            if any(one is not None and two is not None for one, two in pairs):
                raise PromqlError(
                    "execution",
                    f"the vector has several elements with the labels {selector_text(each.labels)}:"
                    " vector cannot contain metrics with the same labelset",
                )
            each = GridSeries(each.labels, [two if one is None else one for one, two in pairs])
        by_labels[each.labels] = each
    return VectorGrid([each for each in by_labels.values() if any(value is not None for value in each.values)])
