"""Limits on the size of responses and on concurrency."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of one API process.

    Per response: ``default_limit`` is the number of entries if the request has no ``limit``, ``max_limit`` the largest
    ``limit`` accepted, ``max_windows`` the rows of statistics, over all windows and groups. Over all clients:
    ``max_requests`` is the number of requests in progress, ``max_live`` the number of ``/v2/live`` streams.
    """

    default_limit: int = 100
    max_limit: int = 10_000
    max_windows: int = 200_000
    max_requests: int = 100
    max_live: int = 50
