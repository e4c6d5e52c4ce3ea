"""The application: from a request to one operation, and from its answer or its failure to a response in JSON."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.resource import Resource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import BaseConverter

import meter
from meter.api.auth.tokens import TOKEN_HEADER
from meter.api.auth.visibility import Everyone
from meter.api.auth.visibility import IAuth
from meter.api.auth.visibility import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.errors import Abort
from meter.api.errors import Fault
from meter.api.ingest import SampleIngest
from meter.api.operations import GONE
from meter.api.operations import OPERATIONS
from meter.api.operations import Operation
from meter.api.rendering.flattening import Flattening
from meter.api.request.arguments import read_arguments
from meter.api.request.body import asked_root
from meter.api.request.body import body_of
from meter.api.request.body import json_of
from meter.api.request.body import pairs_of
from meter.api.request.body import with_pairs
from meter.api.request.context import Limits
from meter.api.request.context import RequestContext
from meter.api.request.media_types import JSON_TYPES
from meter.api.request.media_types import answer_type
from meter.api.responses import JsonResponse
from meter.api.responses import RawResponse
from meter.api.responses import StreamingResponse
from meter.api.streaming.backpressure import stream
from meter.interfaces import IStore
from meter.interfaces import RequestError
from meter.interfaces import Unavailable

REQUEST_ID_HEADER = "x-openstack-request-id"
EXPOSED_HEADERS = ("allow", "link", "retry-after", "warning", "www-authenticate", REQUEST_ID_HEADER)
"""What a page of another origin may read of an answer, beyond what browsers always let it read."""
RETRY_AFTER_SECONDS = 5

_NOBODY = Requester(is_admin=False)
"""Who asks where it does not matter; such a one sees nothing in the store."""


_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token, by RFC 9110."""


class _AnyText(BaseConverter):
    """Matches a name with anything in it; werkzeug's own converters end at a slash or refuse to begin with one."""

    regex = ".+?"
    part_isolating = False


class Api:
    """The API over one store.

    ``acceptance`` is what becomes of samples that clients send; without one they are refused. ``base_url`` is what links
    in answers begin with; without it they begin with the host that the client asked. Pages from ``cors_origins`` may ask
    from within a browser, from any where ``*`` is one of them.
    """

    _log = Logger()

    def __init__(
        self,
        store: IStore,
        clock: IReactorTime,
        *,
        auth: IAuth | None = None,
        acceptance: SampleIngest | None = None,
        limits: Limits | None = None,
        base_url: str | None = None,
        cors_origins: Collection[str] = (),
    ) -> None:
        self._store = store
        self._clock = clock
        self._auth = auth or Everyone()
        self._acceptance = acceptance
        self._limits = limits or Limits()
        self._flat = Flattening()
        self._answering = {False: 0, True: 0}
        self._base_url = base_url.rstrip("/") if base_url else None
        self._cors_origins = frozenset(cors_origins)
        self._klein = self._routed()

    def resource(self) -> IResource:
        """Return the root resource of a site that is this API."""
        return RootResource(self._klein.resource(), self._failed, self._cors_origins)

    def _routed(self) -> Klein:
        app = Klein()
        app.url_map.merge_slashes = False  # two slashes in a row may be part of an id
        app.url_map.converters["any_text"] = _AnyText
        for operation in OPERATIONS:
            path = re.sub(r"{(\w+)}", r"<any_text:\1>", operation.path)
            app.route(path, methods=[operation.method], endpoint=operation.name)(self._route(operation))
        for path, text in GONE.items():
            app.route(path, endpoint=path)(_gone(text))
            app.route(f"{path}/<path:_rest>", endpoint=f"{path}/")(_gone(text))
        app.handle_errors(Exception)(self._failed)  # type: ignore[arg-type] # klein promises less than it passes
        return app

    def _route(self, operation: Operation) -> Callable[..., Awaitable[bytes]]:
        async def respond(request: Request, **path: str) -> bytes:
            content = body_of(request, operation)
            media_type = answer_type(request.getHeader("accept"), operation.media_types)
            with self._admitted(operation):
                requester = _NOBODY if operation.open else await self._auth.requester(request)
                base_url = self._base_url or asked_root(request)
                asked, in_body = pairs_of(request, operation, content)
                question = RequestContext(
                    path=path,
                    arguments=read_arguments(operation.parameters, [*asked, *in_body]),
                    body=None if operation.body is None else json_of(content),
                    media_type=media_type,
                    requester=requester,
                    store=VisibleStore(self._store, requester),
                    flat=self._flat,
                    acceptance=self._acceptance,
                    clock=self._clock,
                    base_url=base_url,
                    url=with_pairs(base_url + request.uri.decode("ascii", "replace"), in_body),
                    limits=self._limits,
                    operations=lambda: OPERATIONS,
                )
                return await self._sent(request, operation.status, await operation.answer(question))

        return respond

    async def _sent(self, request: Request, status: int, answer: Any) -> bytes:
        """Send a flow to its end, or return the body that klein sends."""
        match answer:
            case StreamingResponse(media_type, chunks):
                request.setResponseCode(status)
                request.setHeader("content-type", media_type)
                request.setHeader("cache-control", "no-store")
                if request.method != b"HEAD":
                    await stream(request, chunks, self._clock)
                return b""
            case RawResponse(media_type, body):
                return _ready(request, status, body, f"{media_type}; charset=utf-8")
            case JsonResponse(content, headers):
                for name, value in headers.items():
                    request.setHeader(name, value)
                return _ready(request, status, msgspec.json.encode(content))
        return _ready(request, status, msgspec.json.encode(answer))

    @contextmanager
    def _admitted(self, operation: Operation) -> Iterator[None]:
        """Count who is being answered; :class:`Fault` 503 when they are as many as may be."""
        most = self._limits.live if operation.time_weighted else self._limits.requests
        if self._answering[operation.time_weighted] >= most:
            raise Fault(
                503, f"{most} clients are being answered: try again.", {"Retry-After": str(RETRY_AFTER_SECONDS)}
            )
        self._answering[operation.time_weighted] += 1
        try:
            yield
        finally:
            self._answering[operation.time_weighted] -= 1

    def _failed(self, request: Request, failure: Failure) -> bytes:
        """Turn any failure into a response that says what its cause may know."""
        fault = _fault(failure.value)
        if fault is None:
            self._log.failure(
                "{method} {uri} failed, request {request_id}",
                failure,
                method=request.method.decode("ascii", "replace"),
                uri=request.uri.decode("ascii", "replace"),
                request_id="".join(request.responseHeaders.getRawHeaders(REQUEST_ID_HEADER, [])),
            )
            fault = Fault(500, "Internal Server Error: the log of the server says more under this request's id.")
        for name, value in fault.headers.items():
            request.setHeader(name, value)
        return _ready(request, fault.status, fault.body(request.getHeader("accept") or ""))


def _fault(error: BaseException | None) -> Fault | None:
    """Return what to tell the client of ``error``, ``None`` when it is a defect of ours."""
    match error:
        case Fault():
            return error
        case RequestError():
            return Fault(400, str(error))
        case Unavailable():
            return Fault(503, f"Try again later: {error}", {"Retry-After": str(RETRY_AFTER_SECONDS)})
        case MethodNotAllowed():
            return Abort(405, headers={"Allow": ", ".join(sorted(error.valid_methods or ()))})
        case HTTPException():
            return Abort(error.code or 400)
    return None


def _gone(text: str) -> Callable[..., Awaitable[bytes]]:
    async def respond(request: Request, _rest: str = "") -> bytes:
        raise Abort(410, text)

    return respond


def _ready(request: Request, status: int, body: bytes, content_type: str = JSON_TYPES[0]) -> bytes:
    """Set what goes before ``body`` and return it; klein sends it."""
    request.setResponseCode(status)
    request.setHeader("content-type", content_type)
    request.setHeader("content-length", str(len(body)))
    return body


class RootResource(Resource):
    """Names each request and keeps from klein what it would answer in HTML or plain text."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(
        self, inner: IResource, failed: Callable[[Request, Failure], bytes], cors_origins: frozenset[str]
    ) -> None:
        super().__init__()
        self._inner = inner
        self._failed = failed
        self._cors_origins = cors_origins

    def render(self, request: Request) -> Any:
        """Render with klein; a failure before it has found a route is rendered here."""
        request.setHeader(REQUEST_ID_HEADER, f"req-{uuid.uuid4()}")
        request.setHeader("server", f"Meter/{meter.__version__}")
        if self._preflight(request):
            return b""
        segments = request.postpath or []
        if len(segments) > 1 and not segments[-1]:
            segments.pop()  # one slash at the end is tolerated
        try:
            _check_text(request.method, b"/".join(segments))
            return self._inner.render(request)
        except Exception:
            return self._failed(request, Failure())

    def _preflight(self, request: Request) -> bool:
        """Tell a browser what the page it shows may ask; return whether that was all it wanted to know."""
        origin = request.getHeader("origin") or ""
        if not origin or self._cors_origins.isdisjoint((origin, "*")):
            return False
        request.setHeader("access-control-allow-origin", origin)
        request.setHeader("access-control-expose-headers", ", ".join(EXPOSED_HEADERS))
        request.setHeader("vary", "origin")
        if request.method != b"OPTIONS" or not request.getHeader("access-control-request-method"):
            return False
        request.setResponseCode(204)
        request.setHeader("access-control-allow-methods", "GET, HEAD, POST")
        request.setHeader("access-control-allow-headers", f"{TOKEN_HEADER}, content-type, accept")
        request.setHeader("access-control-max-age", "600")
        return True


def _check_text(method: bytes, path: bytes) -> None:
    """Raise :class:`Fault` 400 unless ``method`` and ``path`` are text that can be looked up."""
    if not _METHOD.fullmatch(method):
        raise Fault(400, "The method must be a word, such as GET.")
    try:
        path.decode()
    except UnicodeDecodeError as error:
        raise Fault(400, "The path must be UTF-8, percent-encoded.") from error
    if b"\0" in path:
        raise Fault(400, "The path must not hold NUL characters.")
