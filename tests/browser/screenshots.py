"""Takes the pictures of docs/images, and looks at all pages at both widths, dark, and as they are printed: ``make screenshots``.

A cloud with two months of data is shown, its last month closed. Pictures of all views are in ``var/screenshots`` for the eye; a page that is
blank, overflows, loads from elsewhere or has serious findings of axe-core fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import NARROW
from tests.browser.chromium import WIDE
from tests.browser.chromium import chromium
from tests.browser.demo_site import ADMIN
from tests.browser.demo_site import TENANT
from tests.browser.demo_site import DemoSite
from tests.browser.demo_site import demo_site
from tests.browser.pages import paths
from tests.browser.test_journeys import sign_in
from tests.system.daemons import House

TOP = Path(__file__).parents[2]
PICTURES = TOP / "docs" / "images"
VIEWS = TOP / "var" / "screenshots"

DOCUMENTED = {
    "overview": "overview",
    "usage": "usage",
    "top": "top",
    "resource": "resource",
    "hosts": "completeness",
    "statements": "statements",
    "pipeline": "pipeline",
    "prices": "prices",
    "query": "query",
}
"""Names of pages that an administrator sees, each with that of its picture in the documentation."""


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory, rabbitmq: Any, postgresql: Any) -> Iterator[DemoSite]:
    """A site of which the last month is closed."""
    house = House(tmp_path_factory.mktemp("site"), bus=rabbitmq.vhost(), store=postgresql.dsn())
    try:
        now = datetime.now(UTC)
        first = (now.replace(day=1) - timedelta(days=1)).replace(day=1)
        site = demo_site(house, days=(now - first).days + 2)
        site.rate("keys", "generate")
        site.rate("close", f"{first:%Y-%m}", "--account", "acme")
        yield site
    finally:
        house.close()


@pytest.mark.timeout(3600)
def test_every_page_in_every_view(month: DemoSite, tmp_path: Path) -> None:
    VIEWS.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    found = []
    for role, token in (("administrator", ADMIN), ("tenant", TENANT)):
        with chromium(month.api.api, tmp_path / role) as browser:
            browser.open("/")
            sign_in(browser, token)
            for name, path in paths(month, admin=role == "administrator").items():
                for view, (width, medium, scheme) in {
                    "wide": (WIDE, "", "light"),
                    "narrow": (NARROW, "", "light"),
                    "dark": (WIDE, "", "dark"),
                    "print": (794, "print", "light"),
                }.items():
                    browser.width(width)
                    browser.media(medium, scheme)
                    browser.open(path)
                    file = VIEWS / f"{role}-{name}-{view}.png"
                    browser.screenshot(file)
                    found += [f"{file.name}: {each}" for each in [*browser.faults(), *browser.axe()]]
                    if role == "administrator" and view == "wide" and name in DOCUMENTED:
                        browser.screenshot(PICTURES / f"{DOCUMENTED[name]}.png", whole=False)
    assert found == []
