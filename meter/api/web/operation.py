"""How pages are declared: operations that respond in HTML, also with their errors."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from typing import Any

from meter.api.operation import Operation
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.web.failure_page import render_failure_page
from meter.api.web.page import HTML


def page(
    path: str,
    handler: Callable[[RequestContext], Awaitable[Any]],
    summary: str,
    *parameters: Parameter,
    costly: bool = True,
    public: bool = False,
    media_types: tuple[str, ...] = (HTML,),
) -> Operation:
    """Return the operation of a page. Its parameters are all that its URL can have: the URL is the view."""
    return Operation(
        name=f"page:{path}",
        path=path,
        summary=summary,
        parameters=parameters,
        result=str,
        handler=handler,
        media_types=media_types,
        costly=costly,
        public=public,
        render_failure=render_failure_page,
    )


def form(
    path: str,
    handler: Callable[[RequestContext], Awaitable[Any]],
    summary: str,
    *parameters: Parameter,
    public: bool = False,
) -> Operation:
    """Return the operation of a form that a page sends by POST and that changes something."""
    return Operation(
        name=f"form:{path}",
        method="POST",
        path=path,
        summary=summary,
        parameters=parameters,
        result=str,
        handler=handler,
        media_types=(HTML,),
        public=public,
        form=True,
        render_failure=render_failure_page,
    )
