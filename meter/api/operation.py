"""An operation of the API, as data, and the parameters that operations of every kind have."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.python.failure import Failure
from twisted.web.server import Request

from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext

JSON = "application/json"

LIMIT = Parameter("limit", "integer", "Maximum number of entries in the response.")
MARKER = Parameter("marker", "string", "Start of the page, from the Link header of the previous page.", narrows=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. Variables of ``path``, in braces, match any text, slashes included.

    ``body`` and ``result`` are the types of the JSON in the request and in the response; ``lists``: the body is a list of
    objects. ``media_types`` are those of
    the response, the default first. ``public``: no authentication. ``costly``: a project can have fewer of
    these in progress. ``streaming``: the response lasts until the client disconnects. ``form``: only pages of this API may
    send it, with all fields in the body. ``render_failure`` renders errors in another form than that of all other operations;
    ``failure`` is the type of their JSON.
    """

    name: str
    method: str = "GET"
    path: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    lists: bool = False
    status: int = 200
    result: Any
    handler: Callable[[RequestContext], Awaitable[Any]]
    media_types: tuple[str, ...] = (JSON,)
    public: bool = False
    costly: bool = False
    streaming: bool = False
    form: bool = False
    render_failure: Callable[[Request, Failure], bytes] | None = None
    failure: Any = None
