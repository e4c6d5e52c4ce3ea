"""HTTP clients on treq and Twisted's agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treq.client import HTTPClient
from twisted.web.client import Agent
from twisted.web.client import HTTPConnectionPool

from meter.http.client import MAX_BODY_BYTES
from meter.http.client import HttpClient
from meter.http.service_limiter import IRequestMetrics
from meter.http.service_limiter import LimitedHttpClient
from meter.http.service_limiter import ServiceLimits
from meter.http.tls import TlsOptions
from meter.http.tls import TlsPolicy

CONNECT_SECONDS = 10.0
MAX_IDLE_CONNECTIONS = 8
"""Idle connections kept open per host, for the next requests."""


def create_client(
    reactor: Any,
    tls: TlsOptions,
    *,
    connect_seconds: float = CONNECT_SECONDS,
    timeout_seconds: float = 30.0,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> HttpClient:
    """Return a client that opens a connection per request; raise :class:`~meter.tls.BadTlsFile`."""
    agent = Agent(reactor, contextFactory=TlsPolicy(tls), connectTimeout=connect_seconds)
    return HttpClient(HTTPClient(agent), reactor, timeout_seconds=timeout_seconds, max_body_bytes=max_body_bytes)


def create_limited_client(
    reactor: Any,
    tls: TlsOptions,
    *,
    max_body_bytes: int,
    limits: ServiceLimits,
    by_service: Mapping[str, ServiceLimits],
    metrics: IRequestMetrics,
) -> LimitedHttpClient:
    """Return a client with persistent connections and limits; raise :class:`~meter.tls.BadTlsFile`."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = MAX_IDLE_CONNECTIONS
    agent = Agent(reactor, contextFactory=TlsPolicy(tls), connectTimeout=CONNECT_SECONDS, pool=pool)
    client = HttpClient(HTTPClient(agent), reactor, max_body_bytes=max_body_bytes)
    return LimitedHttpClient(client, reactor, limits=limits, by_service=by_service, metrics=metrics)
