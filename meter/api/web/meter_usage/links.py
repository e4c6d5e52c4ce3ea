"""Links from a view of usage to others: longer, shorter, earlier and later ranges, and one group alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from urllib.parse import urlencode

from meter.api.web.formats import iso
from meter.api.web.meter_usage.view import UsageView
from meter.api.web.page_range import RANGES


@dataclass(frozen=True, slots=True)
class RangeLink:
    """A link to the same view of another range; ``current`` if it is the one that is shown."""

    name: str
    url: str
    current: bool = False


def range_links(view: UsageView, path: str, now: float) -> Sequence[RangeLink]:
    """Return links to the ranges that end now, to this month and the last one, and to the ranges before, after and around the present one."""
    links = [
        RangeLink(f"last {name}", view.url(path, range=name, window=None), view.range.name == name) for name in RANGES
    ]
    start, end = view.range.start, view.range.end
    for name, month in zip(("this month", "last month"), _months(datetime.fromtimestamp(now, UTC)), strict=True):
        url = view.url(path, start=iso(month[0]), end=iso(month[1]), window=None)
        links.append(RangeLink(name, url, (start, end) == month))
    length = end - start
    for name, moved in (
        ("earlier", (start, -length, end, -length)),
        ("later", (start, length, end, length)),
        ("twice as long", (start, -length / 2, end, length / 2)),
    ):
        try:
            since, until = moved[0] + moved[1], moved[2] + moved[3]
        except OverflowError:
            continue
        links.append(RangeLink(name, view.url(path, start=_whole(since), end=_whole(until), window=None)))
    return links


def _months(now: datetime) -> tuple[tuple[datetime, datetime], tuple[datetime, datetime]]:
    """Return the month of ``now`` in UTC, and the one before."""
    this = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (this + timedelta(days=32)).replace(day=1)
    before = (this - timedelta(days=1)).replace(day=1)
    return (this, following), (before, this)


def _whole(time: datetime) -> str:
    return iso(time - timedelta(microseconds=time.microsecond))


def group_link(view: UsageView, group: str | None) -> str | None:
    """Return the link that shows more of one group: its resources, or the resource itself."""
    if group is None:
        return None
    match view.group:
        case "project":
            return view.url("/usage", project=group, group="resource", by=None)
        case "resource":
            return f"/resource?{urlencode({'id': group})}"
        case "user":
            return view.narrowed("user_id", group)
    return view.narrowed("metadata.flavor.name", group)
