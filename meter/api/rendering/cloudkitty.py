"""JSON schemas of CloudKitty's v2 API, as its clients read them: sums of costs, and data frames of resources and days.

Numbers are JSON numbers there, so that the last digits can differ; statements have exact decimals.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec

from meter.rating.costs.cost_query import CostSum
from meter.rating.costs.rated_days import RatedDay


class Summary(msgspec.Struct, kw_only=True):
    """The response of ``/v2/summary``: ``total`` groups, of which ``results`` has a page, as rows of ``columns`` or as objects."""

    total: int
    results: list[Any]
    format: str
    columns: list[str] | msgspec.UnsetType = msgspec.UNSET


class Volume(msgspec.Struct, kw_only=True):
    """A quantity."""

    unit: str
    qty: float


class PointRating(msgspec.Struct, kw_only=True):
    """What a quantity cost, in the currency of the account's price book."""

    price: float


class DataPoint(msgspec.Struct, kw_only=True):
    """What a resource used, and what it cost."""

    vol: Volume
    rating: PointRating
    groupby: dict[str, str]
    metadata: dict[str, str]


class FramePeriod(msgspec.Struct, kw_only=True):
    """A day in the time zone of the price book."""

    begin: str
    end: str


class DataFrame(msgspec.Struct, kw_only=True):
    """The usage of a day, by SKU."""

    usage: dict[str, list[DataPoint]]
    period: FramePeriod


class DataFrames(msgspec.Struct, kw_only=True):
    """The response of ``/v2/dataframes``: a page of ``total`` data points."""

    total: int
    dataframes: list[DataFrame]


def summary(sums: Sequence[CostSum], total: int, names: Sequence[str], *, as_objects: bool) -> Summary:
    """Return a page of sums, grouped by ``names``."""
    columns = ["begin", "end", "qty", "rate", *names]
    rows = [
        [_time(each.begin), _time(each.end), float(each.quantity), float(each.amount), *each.group] for each in sums
    ]
    if as_objects:
        return Summary(total=total, results=[dict(zip(columns, row, strict=True)) for row in rows], format="object")
    return Summary(total=total, results=rows, format="table", columns=columns if rows else [])


def dataframes(days: Iterable[RatedDay], total: int) -> DataFrames:
    """Return a page of data points, those of the same day and SKU together."""
    frames = []
    for (begin, end, sku), points in groupby(days, lambda each: (each.start, each.end, each.sku)):
        period = FramePeriod(begin=_time(begin), end=_time(end))
        frames.append(DataFrame(usage={sku: [_point(each) for each in points]}, period=period))
    return DataFrames(total=total, dataframes=frames)


def _point(day: RatedDay) -> DataPoint:
    return DataPoint(
        vol=Volume(unit=day.unit, qty=float(day.quantity)),
        rating=PointRating(price=float(day.amount)),
        groupby={"id": day.resource_id, "project_id": day.project_id},
        metadata={**day.values, "currency": day.currency, "account_id": day.account_id},
    )


def _time(value: Any) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%S}+00:00"
