"""HTTP clients: one exchange, TLS, and a rate limiter with a circuit breaker per service. The only code that knows treq."""

from meter.http.exchange import BadResponse
from meter.http.exchange import ErrorResponse
from meter.http.exchange import HttpClient
from meter.http.exchange import HttpRequest
from meter.http.exchange import HttpResponse
from meter.http.exchange import ResponseTimedOut
from meter.http.interfaces import IHttpClient
from meter.http.service_limiter import LimitedHttpClient
from meter.http.service_limiter import Limits

__all__ = [
    "BadResponse",
    "ErrorResponse",
    "HttpClient",
    "HttpRequest",
    "HttpResponse",
    "IHttpClient",
    "LimitedHttpClient",
    "Limits",
    "ResponseTimedOut",
]
