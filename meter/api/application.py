"""The application: takes each request through the steps from its authentication to its response, or to its error."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import Any

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter
from zope.interface import implementer

from meter.api.admission import Admission
from meter.api.admission import owner_of
from meter.api.auth.authorization import Authorization
from meter.api.auth.browser_session import browser_session
from meter.api.auth.browser_session import sent_by_own_page
from meter.api.auth.requester import IAuth
from meter.api.auth.requester import NoAuth
from meter.api.auth.requester import Requester
from meter.api.auth.sign_in import SignIn
from meter.api.auth.sign_in import TokenIssuer
from meter.api.auth.visibility import VisibleStore
from meter.api.budget import DELAYED_STATUSES
from meter.api.budget import RefusalDelay
from meter.api.bus_services import BusServices
from meter.api.client_address import ClientAddresses
from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.failures import render_failure
from meter.api.ingest import SampleIngest
from meter.api.limits import RequestLimits
from meter.api.operation import Operation
from meter.api.operations import GONE
from meter.api.operations import OPERATIONS
from meter.api.operations import VERSIONS
from meter.api.prometheus_operations import PREFIX
from meter.api.prometheus_operations import missing_endpoint
from meter.api.rating_services import RatingServices
from meter.api.rendering.flattening import MetadataFlattener
from meter.api.rendering.prometheus_errors import PrometheusError
from meter.api.rendering.sample_pages import SampleEncoders
from meter.api.request.arguments import Pair
from meter.api.request.arguments import check_pairs
from meter.api.request.arguments import parse_arguments
from meter.api.request.arguments import parse_pairs
from meter.api.request.body import check_size
from meter.api.request.body import decode_body
from meter.api.request.body import decode_list
from meter.api.request.body import read_body
from meter.api.request.body_parameters import check_no_overlap
from meter.api.request.body_parameters import pairs_from_body
from meter.api.request.body_parameters import pairs_of_form
from meter.api.request.context import RequestContext
from meter.api.request.host import HostPolicy
from meter.api.request.media_types import JSON_TYPES
from meter.api.request.media_types import accept_header
from meter.api.request.media_types import accepts_gzip
from meter.api.request.media_types import negotiate
from meter.api.request.url import append_pairs
from meter.api.request.url import link_url
from meter.api.root_resource import RootResource
from meter.api.sending import ResponseSender
from meter.api.streaming.export import MEDIA_TYPES
from meter.api.web.failure_page import render_failure_page
from meter.api.web.page import HTML
from meter.api.web.pages import HOME
from meter.api.web.pages import PAGES
from meter.daemon.shared_slices import OwnedSlices
from meter.daemon.shared_slices import SharedSlices
from meter.interfaces import IStore
from meter.rating.book.watched_directory import WatchedPriceDirectory
from meter.rating.costs.unpriced_usage import RecentUnpricedUsage
from meter.rating.statements.recent_previews import RecentPreviews
from meter.signing_keys import Keyring


@implementer(IAuth)
class _NobodyAuth:
    """Identifies every client as one who may not read any samples, for public operations."""

    async def requester(self, request: IRequest) -> Requester:
        """Return a requester without a project."""
        return Requester(is_admin=False)


_PUBLIC = _NobodyAuth()


API_PATHS = (b"/v1/", b"/v2/", b"/api/")
"""How paths of the API begin, where no pages are."""


class _AnyText(BaseConverter):
    """Matches any text in a path; werkzeug's own converters stop at a slash, or do not match one at the start."""

    regex = ".+?"
    part_isolating = False


class Api:
    """The API over one store.

    Without ``ingest``, samples from clients are refused. With ``keys``, proofs have what only a holder of the key can make.
    ``rating`` has what statements need besides the store.
    ``hosts`` says which root the links in responses have; by default they are relative unless ``Host`` is the address of the
    connection. Scripts from ``cors_origins`` can use the API in a browser, from any origin if ``*`` is one of them.
    ``addresses`` finds the client addresses that limits apply to and that the log names. All requests convert, parse and
    encode in ``slices``.
    ``max_unchecked_seconds`` is how long a request in progress goes on while its token cannot be checked again. Without
    ``prices``, rating is not configured; without ``bus``, pages say nothing about the message bus. With ``issuer``, people
    can sign in at Keystone.
    """

    def __init__(
        self,
        store: IStore,
        clock: IReactorTime,
        *,
        auth: IAuth | None = None,
        issuer: TokenIssuer | None = None,
        ingest: SampleIngest | None = None,
        keys: Keyring | None = None,
        rating: RatingServices | None = None,
        limits: RequestLimits | None = None,
        hosts: HostPolicy | None = None,
        cors_origins: Collection[str] = (),
        addresses: ClientAddresses | None = None,
        slices: SharedSlices | None = None,
        max_unchecked_seconds: float = 300.0,
        prices: WatchedPriceDirectory | None = None,
        bus: BusServices | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._auth = auth or NoAuth()
        self._sign_in = SignIn(self._auth, clock, issuer)
        self._ingest = ingest
        self._keys = keys
        self._rating = rating
        self._max_unchecked_seconds = max_unchecked_seconds
        self._prices = prices
        self._bus = bus
        self._started_at = clock.seconds()
        self._limits = limits or RequestLimits()
        self._flatten = MetadataFlattener()
        self._encoders = SampleEncoders(self._flatten)
        self._recent_previews = RecentPreviews()
        self._recent_unpriced = RecentUnpricedUsage()
        self._hosts = hosts or HostPolicy()
        self._sender = ResponseSender(clock, self._limits)
        self._admission = Admission(self._limits, clock)
        self.addresses = addresses or ClientAddresses()
        self._slices = slices or SharedSlices(clock)
        self._refusal_delay = RefusalDelay(clock)
        self._cors_origins = frozenset(cors_origins)
        self._klein = self._make_klein()

    @property
    def busy(self) -> bool:
        """Whether costly requests are in progress."""
        return self._admission.busy

    def resource(self) -> IResource:
        """Return the root resource of a site that serves this API alone."""
        return RootResource(self._klein.resource(), render_failure, self._cors_origins)

    def _make_klein(self) -> Klein:
        app = Klein()
        app.url_map.merge_slashes = False  # an id can contain two slashes in a row
        app.url_map.converters["any_text"] = _AnyText
        for operation in (*OPERATIONS, *PAGES):
            path = re.sub(r"{(\w+)}", r"<any_text:\1>", operation.path)
            if operation.path == HOME.path:
                continue
            app.route(path, methods=[operation.method], endpoint=operation.name)(self._make_route(operation))
        app.route(HOME.path, methods=[HOME.method], endpoint=HOME.name)(self._make_route(VERSIONS, for_browsers=HOME))
        for path, text in GONE.items():
            app.route(path, endpoint=path)(_gone(text))
            app.route(f"{path}/<path:_rest>", endpoint=f"{path}/")(_gone(text))
        app.route(f"{PREFIX}/<path:rest>", endpoint=PREFIX)(_missing_endpoint)
        app.handle_errors(Exception)(_render_any_failure)  # type: ignore[arg-type] # klein declares fewer arguments than it passes
        return app

    def _make_route(
        self, operation: Operation, *, for_browsers: Operation | None = None
    ) -> Callable[..., Awaitable[bytes]]:
        """Return the function that responds to a request; ``for_browsers`` instead of ``operation`` handles who prefers HTML."""

        async def respond(request: Request, **path: str) -> bytes:
            address = self.addresses.address_of(request)
            chosen = for_browsers if for_browsers is not None and _prefers_html(request) else operation
            try:
                body = await self._respond(chosen, request, address, path)
                if request.code in DELAYED_STATUSES:  # a form shown again after a wrong password
                    await self._refusal_delay.wait(address)
                return body
            except Exception as error:
                if isinstance(error, ApiError) and error.status in DELAYED_STATUSES:
                    await self._refusal_delay.wait(address)
                if chosen.render_failure is None:
                    raise
                return chosen.render_failure(request, Failure())

        return respond

    async def _respond(self, operation: Operation, request: Request, address: str, path: Mapping[str, str]) -> bytes:
        """Check, authenticate and admit ``request`` from ``address``, let ``operation`` handle it, and send the response."""
        client = self.addresses.exact_address_of(request)
        if operation.form and not sent_by_own_page(request):
            raise HttpError(
                403, "Only pages of this site may send this form; a browser says so by Sec-Fetch-Site or Origin."
            )
        base_url = self._hosts.link_root(request)
        body_type, body = read_body(request, json_only=operation.body is not None)
        media_type = negotiate(accept_header(request), operation.media_types)
        # Before admission: who has no valid token takes no place of those who have one.
        auth = _PUBLIC if operation.public else self._auth
        requester = await auth.requester(request)
        request.user_id = requester.user_id  # type: ignore[attr-defined] # for the access log
        session = browser_session(
            request, mode=self._sign_in.mode, requester=requester, address=address, base_url=base_url
        )
        if not operation.public:
            request.browser_session = session  # type: ignore[attr-defined] # for the page of a failure
        authorization = Authorization(
            auth, request, requester, self._clock, max_unchecked_seconds=self._max_unchecked_seconds
        )
        costly = operation.costly or media_type in MEDIA_TYPES
        with self._admission.request(requester, address, live=operation.streaming, costly=costly):
            slices = self._slices.of(owner_of(requester, address))
            if slices.over:
                await slices.pause()
            query_pairs = parse_pairs(request.uri.partition(b"?")[2])
            if operation.form and query_pairs:
                raise ApiError(400, "The fields of a form must be in its body: an address is kept in logs.")
            body_pairs: Sequence[Pair] = ()
            if operation.form:
                body_pairs = pairs_of_form(body, body_type)
            elif operation.body is None:
                body_pairs = pairs_from_body(body, body_type, operation.parameters)
            check_no_overlap(query_pairs, body_pairs)
            pairs = [*query_pairs, *body_pairs]
            check_pairs(pairs)
            context = RequestContext(
                path=path,
                arguments=parse_arguments(operation.parameters, pairs),
                body=await _decoded(operation, body, slices),
                media_type=media_type,
                requester=requester,
                store=VisibleStore(
                    self._store,
                    requester,
                    authorize=authorization.check,
                    place=partial(self._admission.query, requester, address, costly=costly or operation.streaming),
                    recent_previews=self._recent_previews,
                    recent_unpriced=self._recent_unpriced,
                ),
                flatten=self._flatten,
                encoders=self._encoders,
                slices=slices,
                ingest=self._ingest,
                keys=self._keys,
                rating=self._rating,
                clock=self._clock,
                base_url=base_url,
                url=append_pairs(link_url(base_url, request.uri), () if operation.form else body_pairs),
                limits=self._limits,
                session=session,
                sign_in=self._sign_in,
                prices=self._prices,
                bus=self._bus,
                started_at=self._started_at,
                accepts_gzip=accepts_gzip(request),
            )
            return await self._sender.send(
                request, operation, await operation.handler(context), slices, authorization, client
            )


def _prefers_html(request: Request) -> bool:
    """Return whether the client is a browser, which also accepts XHTML, or one that accepts HTML alone.

    Java's URLConnection prefers HTML too, whatever its program wants.
    """
    accept = accept_header(request)
    try:
        preferred = negotiate(accept, (JSON_TYPES[0], HTML))
    except HttpError:
        return False  # 406, in JSON
    return preferred == HTML and ("xhtml" in accept or "*" not in accept)


def _render_any_failure(request: Request, failure: Failure) -> bytes:
    """Render a failure, for a browser as a page if it is that of no operation: an unknown path, or a method that it does not have.

    Below the paths of the API errors are JSON for everybody.
    """
    if failure.check(HTTPException) and _prefers_html(request) and not request.path.startswith(API_PATHS):
        return render_failure_page(request, failure)
    return render_failure(request, failure)


def _gone(text: str) -> Callable[..., Awaitable[bytes]]:
    async def respond(request: Request, _rest: str = "") -> bytes:
        raise HttpError(410, text)

    return respond


async def _missing_endpoint(request: Request, rest: str) -> bytes:
    raise PrometheusError("not_found", missing_endpoint(request.method.decode("ascii"), rest))


async def _decoded(operation: Operation, body: bytes, slices: OwnedSlices) -> Any:
    """Return the decoded JSON body of ``operation``, ``None`` if it takes none; :class:`ApiError` 400 if it is invalid."""
    if operation.body is None:
        return None
    if operation.lists:
        return await decode_list(body, slices)
    check_size(body)
    return decode_body(body)
