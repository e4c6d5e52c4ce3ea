"""All pages, and what they load. Each module of a page lists its operations."""

from __future__ import annotations

from meter.api.operation import Operation
from meter.api.web import book_difference
from meter.api.web import completeness
from meter.api.web import dead_letters
from meter.api.web import overview
from meter.api.web import pipeline
from meter.api.web import prices
from meter.api.web import query
from meter.api.web import quote
from meter.api.web import resource
from meter.api.web import resources
from meter.api.web import sample
from meter.api.web import sign_in
from meter.api.web import statement
from meter.api.web import statements
from meter.api.web import top
from meter.api.web import usage
from meter.api.web.failure_page import render_failure_page
from meter.api.web.static_files import MEDIA_TYPES
from meter.api.web.static_files import VERSION
from meter.api.web.static_files import favicon
from meter.api.web.static_files import static_file

HOME = overview.PAGES[0]
"""The page at ``/`` for browsers."""

STATIC = Operation(
    name="static_file",
    path="/static/{name}",
    summary="A file that pages load.",
    parameters=(VERSION,),
    result=str,
    handler=static_file,
    media_types=tuple(MEDIA_TYPES.values()),
    public=True,
    render_failure=render_failure_page,
)

FAVICON = Operation(
    name="favicon",
    path="/favicon.ico",
    summary="The icon of all pages.",
    result=str,
    handler=favicon,
    media_types=(MEDIA_TYPES["svg"],),
    public=True,
    render_failure=render_failure_page,
)

PAGES: tuple[Operation, ...] = (
    *overview.PAGES,
    *pipeline.PAGES,
    *statements.PAGES,
    *statement.PAGES,
    *prices.PAGES,
    *book_difference.PAGES,
    *quote.PAGES,
    *usage.PAGES,
    *top.PAGES,
    *query.PAGES,
    *sign_in.PAGES,
    *dead_letters.PAGES,
    *resources.PAGES,
    *resource.PAGES,
    *sample.PAGES,
    *completeness.PAGES,
    STATIC,
    FAVICON,
)
