"""The fixtures of the browser tests: one demo site for a module, and a browser for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import Browser
from tests.browser.chromium import chromium
from tests.browser.demo_site import DemoSite
from tests.browser.demo_site import demo_site
from tests.system.daemons import House


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, rabbitmq: Any, postgresql: Any) -> Iterator[DemoSite]:
    """A demo site with three days of data and with hostile names."""
    house = House(tmp_path_factory.mktemp("site"), bus=rabbitmq.vhost(), store=postgresql.dsn())
    try:
        yield demo_site(house, days=3, hostile=True)
    finally:
        house.close()


@pytest.fixture
def browser(site: DemoSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that has never visited the site."""
    with chromium(site.api.api, tmp_path_factory.mktemp("profile")) as browser:
        yield browser
