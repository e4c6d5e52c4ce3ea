"""One journey of each role through the pages, in a real browser over real services."""

from __future__ import annotations

from tests.browser.chromium import Browser
from tests.browser.demo_site import ADMIN
from tests.browser.demo_site import DemoSite


def test_overview(site: DemoSite, browser: Browser) -> None:
    meters = site.get("/v2/meters?unique=true&limit=1000", ADMIN)
    assert len(meters) > 30
    browser.open("/")
    assert browser.faults() == []
    assert browser.axe() == []
