"""Limits on requests: sizes of queries and responses, concurrency, and the speed of clients."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field

from meter.api.prometheus.limits import PromqlLimits

MAX_TERMS = 100
"""Terms of a simple query."""

MAX_GROUPINGS = 10
"""Distinct keys of ``groupby``."""

MAX_AGGREGATES = 20
"""Distinct aggregates of one statistics query, each of which PostgreSQL computes for every row."""

MAX_DEPTH = 32
"""Levels of nesting of a complex query."""

MAX_CONDITIONS = 500
"""Conditions of a complex query; each value of ``in`` counts as one."""

MAX_PATTERNS = 10
"""Regular expressions of a complex query, each of which is matched against every sample that the other conditions leave."""

MAX_PATTERN_CHARACTERS = 500
"""Length of a regular expression."""

MAX_METADATA_KEY_CHARACTERS = 255
"""Length of a metadata key in a query."""

MAX_COMPLEX_QUERY_BYTES = 128 * 1024
"""Size of the body of a complex query, which is parsed in one step."""

MAX_POSTED_SAMPLE_BYTES = 32 * 1024
"""Size of one sample of a POST, each of which is parsed and signed in one step."""

MAX_POSTED_SAMPLES = 10_000
"""Samples of one POST."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of one API process.

    Per response: ``default_limit`` is the number of entries if the request has no ``limit``, ``max_limit`` the largest
    ``limit`` accepted, ``max_windows`` the rows of statistics, over all windows and groups.

    Requests in progress, over all clients: ``max_requests``, and ``max_live`` streams of ``/v2/live``. The last
    ``reserved_requests`` of them, and as many streams, but at most a fifth of them, are for administrators, to whom no
    other of these limits applies.
    One project has at most ``max_requests_per_project``, of which ``max_costly_per_project`` are costly, and
    ``max_live_per_project`` streams; one client address ``max_requests_per_address`` and ``max_live_per_address``.

    Queries in progress: ``readers`` in total, ``None`` for any number, of which one project has at most
    ``max_readers_per_project`` and the last ``reserved_readers`` are for administrators. Other queries wait for
    ``max_wait_seconds`` at most.

    Clients that read slowly: a client that takes longer than ``max_stall_seconds`` for a part of a response has to read
    ``min_bytes_per_second``; an export takes at most ``max_export_seconds``. ``promql`` are the limits of queries in PromQL.
    """

    default_limit: int = 100
    max_limit: int = 10_000
    max_windows: int = 200_000
    max_requests: int = 100
    max_live: int = 50
    reserved_requests: int = 10
    max_requests_per_project: int = 25
    max_costly_per_project: int = 10
    max_live_per_project: int = 10
    max_requests_per_address: int = 50
    max_live_per_address: int = 25
    readers: int | None = None
    max_readers_per_project: int = 2
    reserved_readers: int = 1
    max_wait_seconds: float = 10.0
    min_bytes_per_second: int = 16 * 1024
    max_stall_seconds: float = 60.0
    max_export_seconds: float = 3600.0
    promql: PromqlLimits = field(default_factory=PromqlLimits)
