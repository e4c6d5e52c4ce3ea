"""meter-api loads no library that it does not use: it has the least memory to spare, in each of its processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NOT_NEEDED = (
    "jsonpath_ng",
    "libvirt",
    "meter.agent.polling",
    "meter.declarative",
    "meter.listeners",
    "meter.pollsters",
    "treq",
    "twisted.conch.manhole",
    "yaml",
)
"""Without samples from clients, without Keystone and without a manhole."""

CODE = """
import sys
from meter.settings.config_file import parse
from meter.taps import api
from meter.taps.daemon import Daemon
from meter.taps.parts.diagnostics import add_diagnostics
text = sys.argv[1]
daemon = Daemon("meter-api", parse(text, "meter-api", "test"), [], only_checking=False)
add_diagnostics(daemon)
api.compose(daemon)
print(*sys.modules)
"""

CONFIGURATION = """
[meter]
state_dir = "{directory}"
[store]
dsn = "postgresql:///nowhere"
[signing]
key = "a key that is only for this test"
"""


def loaded(text: str) -> set[str]:
    """Return the modules of a process that has composed the API."""
    ran = subprocess.run([sys.executable, "-c", CODE, text], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_api_loads_no_plugins_no_client_of_keystone_and_no_manhole(tmp_path: Path) -> None:
    assert loaded(CONFIGURATION.format(directory=tmp_path)) & set(NOT_NEEDED) == set()


def test_api_that_must_know_the_meters_of_plugins_loads_them(tmp_path: Path) -> None:
    found = loaded(CONFIGURATION.format(directory=tmp_path) + "[api]\naccept_samples = true\n")
    assert {"meter.declarative", "meter.listeners", "meter.pollsters"} <= found
