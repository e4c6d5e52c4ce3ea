"""Translates what the store refuses into errors of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from meter.api.prometheus.results import PromqlError
from meter.interfaces import QueryTimeout
from meter.interfaces import RequestError


@contextmanager
def as_promql_errors() -> Iterator[None]:
    """Raise :class:`PromqlError` in place of :class:`~meter.interfaces.RequestError`."""
    try:
        yield
    except RequestError as error:
        raise PromqlError("timeout" if isinstance(error, QueryTimeout) else "execution", str(error)) from error
