"""Binary operators between scalars and vectors, with matching of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meter.api.prometheus.grid import Column
from meter.api.prometheus.grid import GridSeries
from meter.api.prometheus.grid import ScalarGrid
from meter.api.prometheus.grid import VectorGrid
from meter.api.prometheus.grid import joined
from meter.api.prometheus.grid import only
from meter.api.prometheus.grid import replaced
from meter.api.prometheus.grid import selector_text
from meter.api.prometheus.grid import without
from meter.api.prometheus.grid import without_name
from meter.api.prometheus.operators import ARITHMETIC
from meter.api.prometheus.operators import COMPARISONS
from meter.api.prometheus.operators import SET_OPERATORS
from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.syntax import BinaryNode
from meter.api.prometheus.syntax import VectorMatching
from meter.daemon.shared_slices import OwnedSlices


async def combined(
    node: BinaryNode, left: ScalarGrid | VectorGrid, right: ScalarGrid | VectorGrid, slices: OwnedSlices
) -> ScalarGrid | VectorGrid:
    """Return the result of the operator of ``node``."""
    if isinstance(left, ScalarGrid) and isinstance(right, ScalarGrid):
        return ScalarGrid([float(each or 0.0) for each in _column(node, left.values, right.values, keeps="bool")])
    if isinstance(left, VectorGrid) and isinstance(right, VectorGrid):
        if node.operator in SET_OPERATORS:
            return await _set_operation(node, left, right, slices)
        return await _matched(node, left, right, slices)
    results = []
    keeps_name = node.operator in COMPARISONS and not node.as_bool
    vector = left if isinstance(left, VectorGrid) else right
    assert isinstance(vector, VectorGrid)
    for each in vector.series:
        if slices.over:
            await slices.pause()
        if isinstance(left, ScalarGrid):
            column = _column(node, left.values, each.values, keeps="right")
        else:
            assert isinstance(right, ScalarGrid)
            column = _column(node, each.values, right.values, keeps="left")
        results.append(GridSeries(each.labels if keeps_name else without_name(each.labels), column))
    return await joined(results, slices)


def _column(node: BinaryNode, left: Sequence[float | None], right: Sequence[float | None], *, keeps: str) -> Column:
    """Return the results of two columns. A comparison without ``bool`` keeps the value of the side that ``keeps`` names."""
    pairs = zip(left, right, strict=True)
    if node.operator in ARITHMETIC:
        operation = ARITHMETIC[node.operator]
        return [None if one is None or two is None else operation(one, two) for one, two in pairs]
    holds = COMPARISONS[node.operator]
    if node.as_bool or keeps == "bool":
        return [None if one is None or two is None else float(holds(one, two)) for one, two in pairs]
    kept = left if keeps == "left" else right
    return [
        value if one is not None and two is not None and holds(one, two) else None
        for (one, two), value in zip(pairs, kept, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Signature:
    """Returns the labels by which elements match."""

    matching: VectorMatching

    def of(self, labels: Labels) -> Labels:
        if self.matching.on:
            return only(labels, self.matching.labels)
        return without(labels, (*self.matching.labels, METRIC_NAME))


async def _grouped(vector: VectorGrid, signature: _Signature, slices: OwnedSlices) -> dict[Labels, list[GridSeries]]:
    groups: dict[Labels, list[GridSeries]] = {}
    for each in vector.series:
        if slices.over:
            await slices.pause()
        groups.setdefault(signature.of(each.labels), []).append(each)
    return groups


async def _set_operation(node: BinaryNode, left: VectorGrid, right: VectorGrid, slices: OwnedSlices) -> VectorGrid:
    signature = _Signature(node.matching)
    if node.operator == "or":
        present = await _presence(left, signature, slices)
        added = await _masked(right, present, signature, wanted=False, slices=slices)
        return await joined([*left.series, *added], slices)
    present = await _presence(right, signature, slices)
    return VectorGrid(await _masked(left, present, signature, wanted=node.operator == "and", slices=slices))


async def _presence(vector: VectorGrid, signature: _Signature, slices: OwnedSlices) -> dict[Labels, list[bool]]:
    """Return by signature at which times there is an element."""
    present: dict[Labels, list[bool]] = {}
    for key, members in (await _grouped(vector, signature, slices)).items():
        if slices.over:
            await slices.pause()
        flags = [value is not None for value in members[0].values]
        for member in members[1:]:
            if slices.over:
                await slices.pause()
            flags = [flag or value is not None for flag, value in zip(flags, member.values, strict=True)]
        present[key] = flags
    return present


async def _masked(
    vector: VectorGrid,
    present: dict[Labels, list[bool]],
    signature: _Signature,
    *,
    wanted: bool,
    slices: OwnedSlices,
) -> list[GridSeries]:
    """Return the series with the values at times at which their signature is ``present``, or is not."""
    results = []
    for each in vector.series:
        if slices.over:
            await slices.pause()
        flags = present.get(signature.of(each.labels))
        if flags is None:
            if not wanted:
                results.append(each)
            continue
        column = [value if flag is wanted else None for value, flag in zip(each.values, flags, strict=True)]
        results.append(GridSeries(each.labels, column))
    return results


async def _matched(node: BinaryNode, left: VectorGrid, right: VectorGrid, slices: OwnedSlices) -> VectorGrid:
    """Return the result of arithmetic or a comparison between elements that match."""
    signature = _Signature(node.matching)
    swapped = node.matching.many == "right"
    many, one = (right, left) if swapped else (left, right)
    # Where one side has no element at all nothing can match: ambiguous ones of the other side are no error then, as in Prometheus.
    matching_times = await _times(many, slices)
    ones = {
        key: await _single(key, members, "left" if swapped else "right", matching_times, slices)
        for key, members in (await _grouped(one, signature, slices)).items()
    }
    results = []
    for key, members in (await _grouped(many, signature, slices)).items():
        if key not in ones:
            continue
        of_key = []
        for member in members:
            for other, values in ones[key]:
                if slices.over:
                    await slices.pause()
                sides = (values, member.values) if swapped else (member.values, values)
                column = _column(node, *sides, keeps="left")
                if any(value is not None for value in column):
                    of_key.append(GridSeries(_result_labels(node, member.labels, other), column))
        if node.matching.many is None and len(members) > 1:
            await _check_single(key, of_key, slices)
        results += of_key
    return await joined_matches(results, slices)


async def joined_matches(series: Sequence[GridSeries], slices: OwnedSlices) -> VectorGrid:
    """Return :func:`~meter.api.prometheus.grid.joined` with the error of Prometheus for ambiguous matches."""
    try:
        return await joined(series, slices)
    except PromqlError as error:
        raise PromqlError(
            "execution", "multiple matches for labels: grouping labels must ensure unique matches"
        ) from error


async def _times(vector: VectorGrid, slices: OwnedSlices) -> list[bool]:
    """Return for each time whether there is an element."""
    flags: list[bool] = []
    for each in vector.series:
        if slices.over:
            await slices.pause()
        present = [value is not None for value in each.values]
        flags = [one or other for one, other in zip(flags, present, strict=True)] if flags else present
    return flags


async def _single(
    key: Labels, members: Sequence[GridSeries], side: str, times: Sequence[bool], slices: OwnedSlices
) -> list[tuple[Labels, Column]]:
    """Return the members of the side that must have one element in each match, at each of ``times``."""
    if await _share_a_time(members, slices, times):
        raise PromqlError(
            "execution",
            f"found duplicate series for the match group {selector_text(key)} on the {side} hand-side of the"
            f" operation: {selector_text(members[0].labels)}, {selector_text(members[1].labels)};"
            " many-to-many matching not allowed: matching labels must be unique on one side",
        )
    return [(member.labels, member.values) for member in members]


async def _check_single(key: Labels, results: Sequence[GridSeries], slices: OwnedSlices) -> None:
    """Raise :class:`PromqlError` if there are several ``results`` of one match at one time."""
    if await _share_a_time(results, slices):
        raise PromqlError(
            "execution",
            f"multiple matches for labels {selector_text(key)}: many-to-one matching must be explicit"
            " (group_left/group_right)",
        )


async def _share_a_time(series: Sequence[GridSeries], slices: OwnedSlices, times: Sequence[bool] | None = None) -> bool:
    """Return whether several of ``series`` have a value at one time, which is one of ``times`` if these are given."""
    if len(series) < 2 or times == []:
        return False
    for number, row in enumerate(zip(*(each.values for each in series), strict=True)):
        if slices.over:
            await slices.pause()
        if (times is None or times[number]) and sum(value is not None for value in row) > 1:
            return True
    return False


def _result_labels(node: BinaryNode, labels: Labels, other: Labels) -> Labels:
    """Return the labels of a result: those of the element of the side with many, cut and extended as the matching says."""
    if node.operator not in COMPARISONS or node.as_bool:
        labels = without_name(labels)
    matching = node.matching
    if matching.many is None:
        return only(labels, matching.labels) if matching.on else without(labels, matching.labels)
    given = dict(other)
    for name in matching.include:
        labels = replaced(labels, name, given.get(name, ""))
    return labels
