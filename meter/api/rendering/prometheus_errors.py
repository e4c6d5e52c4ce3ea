"""Errors of Prometheus' HTTP API: ``{"status": "error", "errorType": …, "error": …}``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from twisted.python.failure import Failure
from twisted.web.server import Request

from meter.api.errors import ApiError
from meter.api.failures import error_of
from meter.api.sending import with_headers

STATUSES: Mapping[str, int] = {
    "bad_data": 400,
    "not_found": 404,
    "execution": 422,
    "internal": 500,
    "timeout": 503,
    "canceled": 503,
}
"""HTTP status of each ``errorType`` that Meter raises by itself."""

ERROR_TYPES: Mapping[int, str] = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "bad_data",
    406: "not_acceptable",
    421: "bad_data",
    429: "too_many_requests",
    503: "unavailable",
}
"""``errorType`` of the errors that all operations can have; of other client errors it is ``bad_data``."""


class PrometheusErrorBody(msgspec.Struct, kw_only=True, rename="camel"):
    """An error of Prometheus' HTTP API."""

    status: str = "error"
    error_type: str
    error: str


class PrometheusError(ApiError):
    """An error of Prometheus' HTTP API. ``kind`` is its ``errorType``."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(STATUSES[kind], text)
        self.kind = kind

    def body(self, accept: str) -> bytes:
        """Return the JSON body; ``accept`` is not used here."""
        return msgspec.json.encode(PrometheusErrorBody(error_type=self.kind, error=self.text))


def render_prometheus_failure(request: Request, failure: Failure) -> bytes:
    """Render any error as one of Prometheus' HTTP API, as :func:`meter.api.failures.render_failure` does for other operations."""
    error = error_of(request, failure)
    if isinstance(error, PrometheusError):
        kind = error.kind
    else:
        kind = ERROR_TYPES.get(error.status, "internal" if error.status >= 500 else "bad_data")
    for name, value in error.headers.items():
        request.setHeader(name, value)
    return with_headers(
        request, error.status, msgspec.json.encode(PrometheusErrorBody(error_type=kind, error=error.text))
    )
