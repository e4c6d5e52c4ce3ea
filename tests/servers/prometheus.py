"""Debian's Prometheus and its promtool: rules and queries are checked with them, and a server scrapes Meter."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.servers import not_installed

INSTALL = "Prometheus is not installed: apt-get install --no-install-recommends prometheus"
PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")


def prometheus() -> str:
    """Return the path of the server; skip the running test where there is none."""
    if PROMETHEUS is None:
        not_installed(INSTALL)
    return PROMETHEUS


def promtool() -> str:
    """Return the path of the tool; skip the running test where there is none."""
    if PROMTOOL is None:
        not_installed(INSTALL)
    return PROMTOOL


def run_promtool(*words: str | Path, cwd: Path) -> str:
    """Return what promtool says; it must accept what it is given."""
    done = subprocess.run([promtool(), *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
