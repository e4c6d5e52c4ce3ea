"""Every benchmark runs: at its smallest size each ends with status 0, and nothing that it started holds its output open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import not_installed
from tests.servers import postgresql
from tests.servers import rabbitmq

ROOT = Path(__file__).parents[2]
SECONDS = 300.0

SMALLEST = {
    "api": ["10000"],
    "central_accounts": ["5", "100"],
    "central_images": ["100"],
    "collector": ["1"],
    "compute_cycle": ["2"],
    "notifications": ["100"],
    "store_read": ["1"],
    "store_read_and_write": ["1"],
    "store_write": [],
}
POSTGRESQL = {"api", "collector", "store_read", "store_read_and_write", "store_write"}
RABBITMQ = {"collector", "notifications"}


def test_each_benchmark_is_known_here() -> None:
    assert {path.stem for path in ROOT.glob("benchmarks/*.py")} - {"__init__"} == set(SMALLEST)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_ends_well_and_so_does_its_output(name: str) -> None:
    for server, users in ((postgresql, POSTGRESQL), (rabbitmq, RABBITMQ)):
        if name in users and server.installed() is None:
            not_installed(server.INSTALL)
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", *SMALLEST[name]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)  # until nobody can write to it any more, as a pipe would
    except subprocess.TimeoutExpired:
        ended = process.poll() is not None
        pytest.fail(f"it ended with {process.returncode}, but its output did not" if ended else "it did not end")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    assert process.returncode == 0, output
    assert output
