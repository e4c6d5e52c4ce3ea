"""One journey of each role through the pages, in a real browser over real services."""

from __future__ import annotations

import csv
import io
import urllib.request
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from urllib.parse import parse_qs
from urllib.parse import quote
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import NARROW
from tests.browser.chromium import WIDE
from tests.browser.chromium import Browser
from tests.browser.demo_site import ADMIN
from tests.browser.demo_site import OTHER
from tests.browser.demo_site import TENANT
from tests.browser.demo_site import DemoSite
from tests.browser.pages import paths
from tests.demo_cloud import HOSTILE_NAMES
from tests.demo_cloud import LAB
from tests.demo_cloud import WEB

HIDDEN_PIXELS = "return arguments[0].scrollWidth - arguments[0].clientWidth"
"""How much of an element that scrolls is out of sight."""


def sign_in(browser: Browser, token: str) -> None:
    """Sign in with a token, at the page to which an unknown visitor is sent."""
    browser.until("document.querySelector('input[name=token]')")
    browser.find("input[name=token]").send_keys(token)
    browser.find("form.sign-in button").click()
    browser.until("!document.querySelector('input[name=token]')")
    browser.until_complete()


def fetched(browser: Browser, url: str) -> str:
    """Return what a link of the page downloads, with the browser's own cookie."""
    [cookie] = [each for each in browser.driver.get_cookies() if each["name"] == "meter_token"]
    request = urllib.request.Request(url, headers={"Cookie": f"meter_token={cookie['value']}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def increase(site: DemoSite, resource: str, start: str, end: str) -> Decimal:
    """The increase of the CPU time of a resource in a time range, as the API answers it."""
    terms = (("resource_id", "eq", resource), ("timestamp", "ge", start), ("timestamp", "lt", end))
    query = "&".join(f"q.field={field}&q.op={op}&q.value={quote(value)}" for field, op, value in terms)
    [row] = site.get(f"/v2/meters/cpu/statistics?{query}&aggregate.func=increase", TENANT)
    return Decimal(str(row["aggregate"]["increase"]))


def faults(browser: Browser, *, narrow: bool = True) -> list[str]:
    """What is wrong with the page at both widths, and to axe-core."""
    found = [*browser.faults(), *browser.axe()]
    if narrow:
        browser.width(NARROW)
        browser.open_details()
        found += browser.faults()
        browser.width(WIDE)
    return found


def test_administrator_looks_at_everything(site: DemoSite, browser: Browser) -> None:
    found = []
    browser.open("/completeness?by=agent&range=24h")
    sign_in(browser, ADMIN)
    assert browser.heading == "Completeness"
    assert parse_qs(urlsplit(browser.driver.current_url).query) == {"by": ["agent"], "range": ["24h"]}
    for name, path in paths(site, admin=True).items():
        browser.open(path)
        found += [f"{name}: {each}" for each in faults(browser)]
    assert found == []


@pytest.mark.parametrize(("scheme", "plain"), [("light", "255,255,255"), ("dark", "13,17,23")])
def test_edge_of_a_table_is_shaded_while_it_goes_on_beyond_it(
    site: DemoSite, browser: Browser, scheme: str, plain: str
) -> None:
    browser.open("/")
    sign_in(browser, ADMIN)
    browser.media("", scheme)
    for path in ("/pipeline", "/prices", "/statements"):
        browser.width(NARROW)
        browser.open(path)
        wide = [each for each in browser.all(".table") if browser.driver.execute_script(HIDDEN_PIXELS, each) > 3]
        assert wide, path
        for each in wide:
            left, right = browser.edge_colours(each)
            assert (left, right != plain) == (plain, True), (path, each.get_attribute("aria-label"))
            browser.driver.execute_script("arguments[0].scrollLeft = arguments[0].scrollWidth", each)
            left, right = browser.edge_colours(each)
            assert (left != plain, right) == (True, plain), (path, each.get_attribute("aria-label"))
        browser.width(WIDE)
        for each in browser.all(".table"):
            assert browser.edge_colours(each) == (plain, plain), (path, each.get_attribute("aria-label"))


def test_tenant_signs_in_zooms_exports_and_verifies(site: DemoSite, browser: Browser) -> None:
    guest = next(each for each in site.cloud.guests if each.project == WEB)
    browser.open(f"/resource?id={guest.id}&range=24h")
    sign_in(browser, TENANT)
    assert guest.name in browser.text
    assert faults(browser) == []

    # A drag over the chart is a zoom, and the URL is the view.
    browser.open("/usage?meter=cpu&group=resource&range=24h")
    before = browser.driver.current_url
    browser.drag(".u-over", 0.25, 0.5)
    browser.until(f"location.href !== {before!r}")
    browser.until_complete()
    zoomed = parse_qs(urlsplit(browser.driver.current_url).query)
    start, end = (datetime.fromisoformat(zoomed[name][0]) for name in ("start", "end"))
    assert timedelta(hours=3) < end - start < timedelta(hours=9)
    assert faults(browser) == []

    # What is downloaded has the numbers that the API answers.
    browser.open("/usage?meter=cpu&group=resource&range=24h")
    [link] = [each for each in browser.all("a") if "usage.csv" in (each.get_attribute("href") or "")]
    rows = list(csv.DictReader(io.StringIO(fetched(browser, link.get_attribute("href") or ""))))
    shown = {each.id for each in site.cloud.guests if each.project == WEB}
    assert {row["group_id"] for row in rows} == shown
    for id in shown:
        counted = sum(Decimal(row["value"]) for row in rows if row["group_id"] == id)
        assert counted == pytest.approx(increase(site, id, rows[0]["start"], rows[-1]["end"]))

    # A sample is verified by a button that says what was checked.
    browser.open(f"/resource?id={guest.id}&range=24h")
    browser.click_text("Verify")
    browser.until("document.body.innerText.match(/signature/i)")
    assert browser.console_errors() == []

    browser.click_text("Sign out")
    browser.until("document.querySelector('input[name=token]')")
    browser.open(f"/resource?id={guest.id}")
    assert guest.name not in browser.text


def test_link_of_a_tenant_shows_nothing_to_another(site: DemoSite, browser: Browser) -> None:
    guest = next(each for each in site.cloud.guests if each.project == WEB)
    browser.open("/")
    sign_in(browser, OTHER)
    for path in (
        f"/resource?id={guest.id}&range=24h",
        f"/usage?meter=cpu&group=resource&project={WEB}&range=24h",
        f"/resources?project={WEB}",
        "/pipeline/dead-letters",
    ):
        browser.open(path)
        assert guest.name not in browser.text
        assert guest.id not in browser.text.replace(f"id={guest.id}", "").replace(guest.id, "", 1)
        assert browser.foreign_requests() == []
    browser.open("/resources")
    assert LAB not in WEB
    assert browser.text.count("web-") == 0


@pytest.mark.parametrize(
    "path", ["/resources", "/top?meter=cpu&by=resource&range=24h", "/usage?meter=cpu&group=resource&range=24h", "/"]
)
def test_hostile_names_are_shown_as_they_are(site: DemoSite, browser: Browser, path: str) -> None:
    browser.open("/")
    sign_in(browser, OTHER)
    browser.open(path)
    assert faults(browser) == []
    assert not browser.all("main img[src=x], main script:not([type])")
    if path == "/resources":
        assert HOSTILE_NAMES[0] in browser.text
