"""The question to the API that has the answer which a page shows."""

from __future__ import annotations

from urllib.parse import quote
from urllib.parse import urlencode

from meter.api.web.formats import iso
from meter.api.web.meter_usage.view import UsageView
from meter.api.web.meter_usage.view import term_pairs


def statistics_url(view: UsageView, *, by_window: bool) -> str:
    """Return the URL of the statistics of all groups of ``view``, by window or of the whole range."""
    terms = [
        *view.arguments["q"],
        *({"field": field, "value": value} for field, value in _owners(view) if value is not None),
        {"field": "timestamp", "op": "ge", "value": iso(view.range.start)},
        {"field": "timestamp", "op": "lt", "value": iso(view.range.end)},
    ]
    pairs = [*term_pairs(terms), ("aggregate.func", view.measure.function)]
    if view.grouping is not None:
        pairs.append(("groupby", view.grouping))
    if by_window:
        pairs.append(("period", str(view.window)))
    return f"/v2/meters/{quote(view.meters.name or '', safe='')}/statistics?{urlencode(pairs)}"


def _owners(view: UsageView) -> list[tuple[str, str | None]]:
    return [("project_id", view.arguments["project"]), ("resource_id", view.arguments["resource"])]
