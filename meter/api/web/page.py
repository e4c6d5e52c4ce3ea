"""A page: a template of Jinja2, which escapes all values, rendered in slices, and the headers that restrict what a browser does with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment
from jinja2 import PackageLoader
from jinja2 import StrictUndefined

from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web import formats
from meter.api.web.session import session_view
from meter.api.web.static_files import static_url

HTML = "text/html"

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Vary": "Accept, Cookie",
}
"""Headers of every page: nothing is loaded from elsewhere, nothing inline runs or styles."""

NAVIGATION = (
    ("/", "Overview"),
    ("/usage", "Usage"),
    ("/top", "Top"),
    ("/resources", "Resources"),
    ("/completeness", "Completeness"),
    ("/statements", "Statements"),
    ("/pipeline", "Pipeline"),
    ("/prices", "Prices"),
    ("/query", "Query"),
)
"""Paths and names of the pages in the navigation."""


async def page_response(
    context: RequestContext, template: str, title: str, *, status: int | None = None, **values: Any
) -> RawResponse:
    """Return the page ``template``, which extends ``layout.html``; ``values`` are its variables.

    Every template also has ``title``, ``context``, ``requester``, ``navigation`` and ``session``, a
    :class:`~meter.api.web.session.SessionView`.
    """
    common: dict[str, Any] = {
        "title": title,
        "context": context,
        "requester": context.requester,
        "navigation": NAVIGATION,
        "session": session_view(context.session, context.url),
    }
    parts: list[str] = []
    stream = environment().get_template(template).generate({**common, **values})
    for part in stream:
        parts.append(part)
        if context.slices.over:
            await context.slices.pause()
    return RawResponse(HTML, "".join(parts).encode(), HEADERS, status)


@cache
def environment() -> Environment:
    """Return the environment of all templates. A missing variable is an error; filters are those of :mod:`.formats`."""
    made = Environment(
        loader=PackageLoader("meter.api.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(formats.FILTERS)
    made.globals["static_url"] = static_url
    return made
