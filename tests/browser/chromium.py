"""A headless Chromium, and what it says about a page: errors, requests, what overflows, what is blank, and what axe-core finds."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver import ActionChains
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import not_installed

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")
INSTALL = "Chromium is not installed: apt-get install --no-install-recommends chromium chromium-driver"

WIDE, NARROW = 1300, 390
"""Widths of a window in pixels: of a desktop, and of a telephone."""

WAIT_SECONDS = 60.0

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")

SERIOUS = ("serious", "critical")

OVERFLOWING = """
const wide = document.documentElement.clientWidth;
const scrolls = element => {
  for (let each = element.parentElement; each; each = each.parentElement)
    if (/auto|scroll|hidden|clip/.test(getComputedStyle(each).overflowX)) return true;
  return false;
};
return [...document.querySelectorAll("body *")].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width > 0 && box.right > wide + 1 && !scrolls(each) && !each.closest("svg svg, .skip, details:not([open]) > :not(summary)");
}).slice(0, 5).map(each => each.outerHTML.slice(0, 120));
"""
"""Elements that stick out of the page on the right, and do not lie in one that scrolls."""

EDGES = """
const done = arguments[1];
(async () => {
  const bytes = Uint8Array.from(atob(arguments[0]), each => each.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], {type: "image/png"}));
  const drawn = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
  drawn.drawImage(picture, 0, 0);
  const usual = x => {
    const column = drawn.getImageData(x, 0, 1, picture.height).data, counted = new Map();
    for (let at = 0; at < column.length; at += 4) {
      const colour = column.slice(at, at + 3).join();
      counted.set(colour, (counted.get(colour) || 0) + 1);
    }
    return [...counted].sort((one, other) => other[1] - one[1])[0][0];
  };
  return [usual(1), usual(picture.width - 2)];
})().then(done, error => done(String(error)));
"""
"""The most frequent colour at the left edge of a picture, and that at the right edge."""


class Browser:
    """A window of Chromium that loads nothing but from this machine."""

    def __init__(self, driver: Chrome, root: str) -> None:
        self.driver = driver
        self.root = root

    def open(self, path: str) -> None:
        """Open a page and wait until it is complete."""
        self.driver.get(self.root + path)
        self.until_complete()

    def until_complete(self) -> None:
        """Wait until the page is loaded and its scripts have drawn all charts."""
        self.until("document.readyState === 'complete' && !document.querySelector('[data-chart]:not([data-drawn])')")

    def until(self, condition: str) -> Any:
        """Return the value of a JavaScript expression as soon as it is true."""
        return WebDriverWait(self.driver, WAIT_SECONDS).until(
            lambda driver: driver.execute_script(f"return {condition}"), f"{condition} at {self.driver.current_url}"
        )

    def find(self, selector: str) -> WebElement:
        """Return the element that a CSS selector finds."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that a CSS selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    @property
    def heading(self) -> str:
        """The text of the page's heading."""
        return self.find("h1").text

    @property
    def text(self) -> str:
        """The text of the page that a reader sees."""
        return self.find("body").text

    def click_text(self, text: str) -> None:
        """Click the first button or link with this text."""
        self.driver.find_element(
            By.XPATH, f"//*[self::button or self::a or self::summary][normalize-space()='{text}']"
        ).click()

    def drag(self, selector: str, start: float, end: float) -> None:
        """Drag the mouse over an element, from one fraction of its width to another."""
        element = self.find(selector)
        width = element.size["width"]
        actions = ActionChains(self.driver).move_to_element_with_offset(element, int(width * (start - 0.5)), 0)
        actions.click_and_hold().move_by_offset(int(width * (end - start)), 0).release().perform()

    def width(self, pixels: int, height: int = 1100) -> None:
        """Set the width of the page as a device of this width shows it."""
        mobile = pixels < 600
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": mobile},
        )

    def media(self, medium: str = "", scheme: str = "light") -> None:
        """Show pages as for ``print`` or for a screen, and in a ``dark`` or ``light`` colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": features})

    def edge_colours(self, element: WebElement) -> tuple[str, str]:
        """Return the most frequent colours, as ``red,green,blue``, at the left and at the right edge of an element."""
        picture: str = element.screenshot_as_base64
        left, right = self.driver.execute_async_script(EDGES, picture)
        return left, right

    def open_details(self) -> None:
        """Open all parts of the page that are closed at first."""
        self.driver.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")

    def faults(self) -> list[str]:
        """Return what is wrong with the page: errors on the console, requests to elsewhere, a blank page, what overflows."""
        return [*self.console_errors(), *self.foreign_requests(), *self._blank(), *self._overflowing()]

    def console_errors(self) -> list[str]:
        """Return and forget the errors that the console has; a status of the page itself is none."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [
            f"console: {each['message']}"
            for each in entries
            if each["level"] == "SEVERE" and "status of" not in each["message"]
        ]

    def foreign_requests(self) -> list[str]:
        """Return and forget the requests that left the origin."""
        found = []
        entries: list[dict[str, Any]] = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        for entry in entries:
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if urlsplit(url).scheme in ("http", "https", "ws", "wss") and not url.startswith(self.root + "/"):
                    found.append(f"request to elsewhere: {url}")
        return found

    def _blank(self) -> Iterator[str]:
        if len(self.find("main").text) < 30:
            yield f"blank: {self.driver.current_url}"

    def _overflowing(self) -> Iterator[str]:
        for element in self.driver.execute_script(OVERFLOWING):
            yield f"overflows at {self.driver.current_url}: {element}"

    def axe(self) -> list[str]:
        """Return the serious findings of axe-core on this page."""
        self.driver.execute_script(AXE)
        result = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(done, error => done({error: String(error)}));"
        )
        assert "error" not in result, result
        return [
            f"axe at {self.driver.current_url}: {each['id']}: {each['help']}: {[node['html'][:100] for node in each['nodes'][:3]]}"
            for each in result["violations"]
            if each["impact"] in SERIOUS
        ]

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """Write a picture of the page, of the ``whole`` of it."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}
        options = {"captureBeyondViewport": True, "clip": clip} if whole else {}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", **options})
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium(root: str, profile: Path) -> Iterator[Browser]:
    """Start a browser for the pages below ``root``, with a fresh ``profile``."""
    if CHROMIUM is None or CHROMEDRIVER is None:
        not_installed(INSTALL)
    options = Options()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--force-color-profile=srgb",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--window-size={WIDE},1100",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    try:
        driver.set_page_load_timeout(WAIT_SECONDS)
        driver.set_script_timeout(WAIT_SECONDS)
        browser = Browser(driver, root)
        browser.width(WIDE)
        yield browser
    finally:
        driver.quit()
