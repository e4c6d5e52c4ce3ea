"""The question to the API that has the answer which a page shows."""

from __future__ import annotations

from urllib.parse import quote

from meter.api.request.arguments import Pair
from meter.api.request.url import query_url
from meter.api.web.formats import iso
from meter.api.web.meter_usage.view import UsageView


def statistics_url(view: UsageView, *, by_window: bool) -> str:
    """Return the URL of the statistics of all groups of ``view``, by window or of the whole range."""
    terms = [
        *view.arguments["q"],
        *({"field": field, "value": value} for field, value in _owners(view) if value is not None),
        {"field": "timestamp", "op": "ge", "value": iso(view.range.start)},
        {"field": "timestamp", "op": "lt", "value": iso(view.range.end)},
    ]
    pairs: list[Pair] = [("aggregate.func", view.measure.function)]
    if view.grouping is not None:
        pairs.append(("groupby", view.grouping))
    if by_window:
        pairs.append(("period", str(view.window)))
    return query_url(f"/v2/meters/{quote(view.meters.name or '', safe='')}/statistics", terms, pairs)


def _owners(view: UsageView) -> list[tuple[str, str | None]]:
    return [("project_id", view.arguments["project"]), ("resource_id", view.arguments["resource"])]
