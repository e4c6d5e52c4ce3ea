"""Usage without a price as rows of a table, each with the link to the page that shows the usage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from meter.api.request.context import RequestContext
from meter.api.web.formats import iso
from meter.api.web.page_part import PagePart
from meter.api.web.page_part import part_of_available_store
from meter.interfaces import Unavailable
from meter.rating.costs.unpriced_usage import UnpricedGroup
from meter.rating.period import start_of_day


@dataclass(frozen=True, slots=True)
class UnpricedRow:
    """A group of unpriced usage, and the path of the page that shows its usage, or its resources."""

    group: UnpricedGroup
    url: str


async def unpriced_groups(context: RequestContext) -> PagePart[Sequence[UnpricedGroup]]:
    """Return the usage of all accounts without a price; nothing to tenants, and where rating is not configured."""
    if context.prices is None or not context.requester.is_admin:
        return PagePart(())
    try:
        directory = await context.prices.current()
    except Unavailable as error:
        return PagePart(None, str(error))
    return await part_of_available_store(context.store.unpriced_usage(directory, context.utc_now, context.slices))


def unpriced_rows(groups: Sequence[UnpricedGroup], now: datetime) -> list[UnpricedRow]:
    """Return a row for each of ``groups``."""
    return [UnpricedRow(each, _url(each, now)) for each in groups]


def _url(group: UnpricedGroup, now: datetime) -> str:
    if group.meter is None:
        return f"/resources?{urlencode({'kind': group.resource_kind or ''})}"
    start, end = (start_of_day(day, group.period.timezone) for day in (group.first, group.until))
    pairs = [("meter", group.meter), ("group", "project"), ("start", iso(start)), ("end", iso(min(end, now)))]
    # The values of SKUs that measure a meter are those of metadata.
    for n, (name, value) in enumerate((name, value) for name, value in group.values.items() if value):
        pairs += [(f"q[{n}].field", f"metadata.{name}"), (f"q[{n}].value", value), (f"q[{n}].type", "string")]
    return f"/usage?{urlencode(pairs)}"
