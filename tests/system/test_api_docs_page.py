"""The documentation page in Chromium, without access to anything but the daemon."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter.api.operations import OPERATIONS
from tests.servers import not_installed
from tests.system.daemons import STOPPED
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.daemons import until

CHROMIUM = shutil.which("chromium")
INSTALL = "Chromium is not installed: apt-get install --no-install-recommends chromium"


@pytest.fixture
def api(house: House) -> Iterator[Daemon]:
    """A daemon whose store is unreachable, which the documentation does not need."""
    if CHROMIUM is None:
        not_installed(INSTALL)
    house.store = "postgresql://127.0.0.1:1/none"
    api = house.daemon("meter-api").start()
    until(lambda: fetch(f"{api.api}/docs")[0] == 200, "the page")
    yield api
    assert api.stop() in STOPPED, api.log


def render(url: str, profile: Path) -> str:
    """Return the DOM that Chromium builds from ``url``, as HTML, without a network."""
    assert CHROMIUM is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        f"--user-data-dir={profile}",
    ]
    no_network = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    ran = subprocess.run(
        [CHROMIUM, *options, no_network, "--dump-dom", url], capture_output=True, text=True, timeout=180, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_browser_without_internet_shows_every_operation(api: Daemon, tmp_path: Path) -> None:
    document = render(f"{api.api}/docs", tmp_path / "profile")
    # Proof that Chromium has parsed the page: it has closed elements that the page leaves open.
    assert document.count("</td></tr>") > 20
    for operation in OPERATIONS:
        assert f'<h2 id="{operation.name}"><b>{operation.method}</b> <code>{operation.path}</code></h2>' in document
