"""Status pages of a daemon: liveness ``/healthz``, readiness ``/readyz`` and metrics ``/metrics``."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import BAD_REQUEST
from twisted.web.http import INTERNAL_SERVER_ERROR
from twisted.web.http import NOT_ALLOWED
from twisted.web.http import NOT_FOUND
from twisted.web.http import OK
from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import Request
from twisted.web.server import Site
from zope.interface import implementer

from meter.daemon.http_connections import OpenConnections
from meter.daemon.http_server import JSON
from meter.daemon.http_server import LimitedSite
from meter.daemon.http_server import ServerRequest
from meter.daemon.http_server import error_body
from meter.daemon.http_server import request_problem
from meter.daemon.http_server import set_response_headers
from meter.daemon.services import Periodic
from meter.daemon.start_grace import StartGrace
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.settings.masked import masked_urls

TEXT = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]
"""Status, content type and body."""


def readiness_of(dependency: IDependency) -> Readiness:
    """Return the readiness of ``dependency``; one that raises is not ready, with the exception as its reason.

    Passwords of URLs in the reason are masked.
    """
    try:
        state = dependency.readiness()
        return replace(state, reason=masked_urls(state.reason))
    except Exception as error:
        name = getattr(dependency, "name", None) or type(dependency).__name__
        return Readiness(str(name), False, masked_urls(f"the readiness check failed: {type(error).__name__}: {error}"))


@implementer(IDependency)
class OptionalDependency:
    """An optional ``dependency``: without it the daemon is degraded. ``without`` says what does not work then."""

    def __init__(self, dependency: IDependency, without: str) -> None:
        self._dependency = dependency
        self._without = without

    def readiness(self) -> Readiness:
        """Return the readiness of the dependency, with ``without`` in front of the reason."""
        state = readiness_of(self._dependency)
        return state if state.ready else replace(state, needed=False, reason=f"{self._without}: {state.reason}")


def readiness_text(dependencies: Sequence[IDependency]) -> str:
    """Return the state of each dependency as text, one per line."""
    states = [readiness_of(dependency) for dependency in dependencies]
    return "\n".join(f"{state.name}: {_word(state)}: {state.reason}" for state in states)


def _word(state: Readiness) -> str:
    return "ready" if state.ready else "not ready" if state.needed else "degraded"


def _ignore(reason: str) -> None:
    """Do not count."""


def status_site(
    dependencies: Sequence[IDependency],
    exposition: Callable[[], bytes],
    exposition_type: str,
    clock: IReactorTime,
    count: Callable[[str], object] = _ignore,
) -> Site:
    """Return the site that a daemon serves on ``[status] listen``.

    ``/healthz`` returns ``ok`` while the reactor runs. ``/readyz`` returns ``{"ready": …, "degraded": …,
    "dependencies": [{"name", "ready", "reason"}, …]}`` with 200, or 503 unless all needed dependencies are ready; a
    daemon is *degraded* while it is ready and an optional dependency is not. ``/metrics`` returns ``exposition()`` with
    the content type ``exposition_type``. ``clock`` times idle connections out. ``count`` is called with the reason of each
    rejection because of too many connections or a slow request; the limits are the defaults of ``[api]``.
    """

    def health() -> Answer:
        return OK, TEXT, b"ok\n"

    def readiness() -> Answer:
        states = [readiness_of(dependency) for dependency in dependencies]
        ready = all(state.ready or not state.needed for state in states)
        degraded = ready and not all(state.ready for state in states)
        shown = [{"name": state.name, "ready": state.ready, "reason": state.reason} for state in states]
        body = json.dumps({"ready": ready, "degraded": degraded, "dependencies": shown}).encode() + b"\n"
        return OK if ready else SERVICE_UNAVAILABLE, JSON, body

    def metrics() -> Answer:
        return OK, exposition_type, exposition()

    pages = _Pages({b"/healthz": health, b"/readyz": readiness, b"/metrics": metrics})
    site = _QuietSite(pages, requestFactory=_BodilessRequest, timeout=30, reactor=clock)
    site.connections = OpenConnections(count=count)
    return site


class _Pages(Resource):
    """Serves GET and HEAD for ``pages`` by path; 404 and 405 for anything else. Errors are JSON, as those of the API."""

    _log = Logger()

    def __init__(self, pages: Mapping[bytes, Callable[[], Answer]]) -> None:
        super().__init__()
        self.isLeaf = True
        self._pages = pages

    def render(self, request: Request) -> bytes:
        """Return the response."""
        code, content_type, body = self._answer(request)
        set_response_headers(request.responseHeaders)
        request.setResponseCode(code)
        request.setHeader("Content-Type", content_type)
        request.setHeader("Content-Length", str(len(body)))
        return b"" if request.method == b"HEAD" else body

    def _answer(self, request: Request) -> Answer:
        if problem := request_problem(request):
            return _error(BAD_REQUEST, problem)
        page = self._pages.get(request.path)
        if page is None:
            return _error(NOT_FOUND, f"Not found; the pages are {b', '.join(self._pages).decode()}.")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return _error(NOT_ALLOWED, "Only GET and HEAD are supported.")
        try:
            return page()
        except Exception:
            self._log.failure("the page {path} failed", path=request.path.decode("ascii"))
            return _error(INTERNAL_SERVER_ERROR, "Internal error; the log has the traceback.")


def _error(status: int, text: str) -> Answer:
    return status, JSON, error_body(status, text)


class _BodilessRequest(ServerRequest):
    """Discards request bodies: no page needs one, and a client could send one without end."""

    def handleContentChunk(self, data: bytes) -> None:
        """Discard the bytes."""


class _QuietSite(LimitedSite):
    """Writes no access log: probes come every few seconds."""

    noisy = False

    def log(self, request: HttpRequest) -> None:
        """Write nothing."""


class ReadinessLog:
    """Logs when a dependency becomes ready or not ready: once per change, and at the first check.

    What is not ready after the start is a warning only if it stays so.
    """

    _log = Logger()

    def __init__(self, dependencies: Sequence[IDependency], clock: IReactorTime) -> None:
        self._dependencies = dependencies
        self._starting = StartGrace(clock)
        self._before: dict[int, str] = {}

    async def check(self) -> None:
        """Check every dependency and log changes since the last check."""
        if not self._before:
            self._starting.begin()
        for index, dependency in enumerate(self._dependencies):
            state = readiness_of(dependency)
            event = "ready" if state.ready else "starting" if self._starting.active else "failing"
            if self._before.get(index) == event:
                continue
            self._before[index] = event
            told = {"dependency": state.name, "state": _word(state), "reason": state.reason}
            if state.ready:
                self._log.info("{dependency} is ready: {reason}", **told)
            elif event == "starting":
                self._log.info("{dependency} is not ready yet: {reason}", **told)
            else:
                self._log.warn("{dependency} is {state}: {reason}", **told)


def readiness_watch(
    dependencies: Sequence[IDependency], clock: IReactorTime, interval: float = 1.0, first_after: float = 1.0
) -> Periodic:
    """Return the service that checks every ``interval`` seconds whether a dependency was lost or has returned.

    The first check comes after ``first_after`` seconds, so that connecting at the start is not logged as a loss.
    """
    log = ReadinessLog(dependencies, clock)
    return Periodic(log.check, interval, clock, name="readiness watch", first_after=first_after)
