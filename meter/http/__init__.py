"""HTTP client: requests with time and size limits, TLS, and a rate limiter with a circuit breaker per service.

The only package that uses treq. It does not depend on OpenStack.
"""

from meter.http.client import BadResponse
from meter.http.client import ErrorResponse
from meter.http.client import HttpClient
from meter.http.client import HttpRequest
from meter.http.client import HttpResponse
from meter.http.client import ResponseTimedOut
from meter.http.interfaces import IHttpClient
from meter.http.service_limiter import LimitedHttpClient
from meter.http.service_limiter import ServiceLimits
from meter.http.tls import TlsOptions
from meter.tls import BadTlsFile

__all__ = [
    "BadResponse",
    "BadTlsFile",
    "ErrorResponse",
    "HttpClient",
    "HttpRequest",
    "HttpResponse",
    "IHttpClient",
    "LimitedHttpClient",
    "ResponseTimedOut",
    "ServiceLimits",
    "TlsOptions",
]
