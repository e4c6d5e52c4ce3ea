"""Every benchmark runs, and every benchmark can fail.

At its smallest size each ends with exit code 0, and nothing that it started holds its output open; where something is not installed, with 2
and a sentence. ``make benchmark-faults`` runs each with a Meter that loses something, or answers something else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.benchmark_faults import FAULTS
from tests.servers import citus
from tests.servers import not_allowed
from tests.servers import not_installed
from tests.servers import postgresql
from tests.servers import rabbitmq

ROOT = Path(__file__).parents[2]
SECONDS = 300.0

SHARED = {
    *("__init__", "measuring", "workload", "before_after"),
    *("simulated_region", "region_history", "region_collector", "region_writing"),
}
"""Modules that are no benchmarks; before_after runs those of another checkout, which has an environment of its own."""
SMALLEST = {
    "api": ["--samples", "10000", "--runs", "1", "--requests", "5"],
    "central_accounts": ["--projects", "5", "--runs", "1"],
    "central_images": ["--images", "1000", "--runs", "1"],
    "cluster": ["--runs", "1", "--batches", "1", "--shards", "1"],
    "closing": ["--instances", "40", "--skus", "2", "--runs", "1", "--mode", "not-durable"],
    "dashboard": ["--days", "1", "--instances", "8", "--runs", "1", "--paints", "0"],
    "collector": [
        "--samples",
        "400",
        "--instances",
        "10",
        "--runs",
        "2",
        "--mode",
        "durable",
        "--stalled-seconds",
        "3",
    ],
    "completeness": [
        *("--days", "2", "--counted-days", "1", "--hosts", "2", "--instances", "8", "--large", "4"),
        *("--runs", "1", "--mode", "not-durable"),
    ],
    "compute_cycle": ["--domains", "2", "--runs", "1"],
    "daemons": [
        *("--settle-seconds", "0", "--idle-seconds", "1", "--samples", "300", "--instances", "10", "--runs", "1"),
        *("--stalled-seconds", "60"),
    ],
    "growth_of_plans": ["--weeks", "2", "8", "--runs", "1"],
    "hostile_tenant": [
        *("--samples", "10000", "--runs", "1", "--requests", "3", "--posts", "1", "--before-seconds", "1"),
    ],
    "notifications": ["--notifications", "100", "--runs", "1", "--stalled-seconds", "3"],
    "packing": ["--resources", "8", "--polls", "400", "--runs", "1"],
    "promql": ["--days", "1", "--instances", "8", "--runs", "1", "--mode", "not-durable"],
    "questions": ["--minutes", "700", "--resources", "24", "--runs", "1"],
    "rating": [
        *("--instances", "40", "--measured", "4", "--skus", "2", "--runs", "1", "--mode", "not-durable"),
    ],
    "region": [
        *(
            "--sizes",
            "110x30x1x10",
            "--meters",
            "2",
            "--retention-days",
            "21",
            "--pack-after-days",
            "7",
            "--delivered-days",
            "2",
        ),
        *("--cycles", "2", "--late-every", "5", "--twice-every", "3", "--answers", "1"),
    ],
    "readers": [
        *("--samples", "10000", "--clients", "5", "--requests", "2", "--processes", "2", "--runs", "1"),
    ],
    "road": [
        *("--samples", "400", "--instances", "10", "--runs", "1", "--mode", "durable", "--stalled-seconds", "3"),
    ],
    "reports": ["--agents", "2", "--instances", "10", "--runs", "1"],
    "store_read": ["--days", "1", "--instances", "8", "--runs", "1", "--mode", "not-durable"],
    "store_read_and_write": [
        *("--days", "1", "--instances", "8", "--runs", "1", "--mode", "not-durable"),
        *("--batches", "2", "--alone-seconds", "0.5"),
    ],
    "store_write": ["--runs", "2", "--batches", "1"],
}
POSTGRESQL = {
    "api",
    "closing",
    "cluster",
    "collector",
    "completeness",
    "daemons",
    "growth_of_plans",
    "hostile_tenant",
    "packing",
    "promql",
    "questions",
    "rating",
    "region",
    "readers",
    "reports",
    "road",
    "store_read",
    "store_read_and_write",
    "store_write",
}
RABBITMQ = {"collector", "daemons", "notifications", "road"}

MISSING = {
    "libvirt-python": ("compute_cycle", "import sys; sys.modules['libvirt'] = None"),
    "PostgreSQL": ("store_write", "from tests.servers import postgresql; postgresql.installed = lambda: None"),
    "RabbitMQ": ("notifications", "from tests.servers import rabbitmq; rabbitmq.installed = lambda: None"),
}

RUN = "import runpy, sys; sys.argv[0] = {name!r}; runpy.run_module('benchmarks.{name}', run_name='__main__')"


def run(name: str, *, before: str = "") -> tuple[int, str]:
    """Run a benchmark at its smallest size, after the statements ``before``; return its exit code and its output."""
    for server, users in ((postgresql, POSTGRESQL), (rabbitmq, RABBITMQ)):
        if name in users and server.installed() is None:
            not_installed(server.INSTALL)
    if name == "cluster" and (missing := citus.extension_missing(postgresql.installed())):
        not_allowed(missing)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{RUN.format(name=name)}", *SMALLEST[name]],
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
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it started, if it did not end that itself
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    return process.returncode, output


def test_each_benchmark_is_known_here() -> None:
    assert {path.stem for path in ROOT.glob("benchmarks/*.py")} - SHARED == set(SMALLEST)


def test_each_benchmark_has_a_fault_that_it_must_notice() -> None:
    assert {name for name, _ in FAULTS.values()} == set(SMALLEST)


@pytest.mark.parametrize("name", SMALLEST)
def test_benchmark_that_counts_everything_exits_with_0(name: str) -> None:
    code, output = run(name)
    assert code == 0, output
    assert "all equal" in output
    assert "DIFFERS" not in output


@pytest.mark.parametrize("what", MISSING)
def test_benchmark_without_what_it_needs_exits_with_2_and_says_what(what: str) -> None:
    name, before = MISSING[what]
    code, output = run(name, before=before)
    assert code == 2, output
    assert f"{what}" in output
    assert "not installed" in output.splitlines()[-1]
