"""What the contract of the store is tested on: one server, and a cluster where the extension is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.spread import spread_database


@pytest.fixture(scope="module")
def spread_store(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """The cluster, and the DSN of a database whose samples are spread over it, for all tests of a module."""
    with spread_database(request) as cluster_and_dsn:
        yield cluster_and_dsn
