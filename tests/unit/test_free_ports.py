"""No two servers of tests are given the same port, even while neither listens."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.ports import BLOCK
from tests.ports import CHOSEN_BY_KERNEL
from tests.ports import free_port

ANOTHER = "from tests.ports import *; print(*(free_port() for _ in range(10)))"
TOP = Path(__file__).parents[2]


def test_ports_are_given_out_once_in_any_process_and_never_by_the_kernel() -> None:
    here = [free_port() for _ in range(BLOCK + 1)]
    there = subprocess.run([sys.executable, "-c", ANOTHER], cwd=TOP, capture_output=True, text=True, check=True).stdout
    ports = [*here, *map(int, there.split())]
    assert len(set(ports)) == BLOCK + 11
    assert max(ports) < int(CHOSEN_BY_KERNEL.read_text().split()[0])


def test_several_threads_are_given_ports_at_once() -> None:
    with ThreadPoolExecutor(4) as threads:
        ports = list(threads.map(lambda _: free_port(), range(BLOCK)))
    assert len(set(ports)) == BLOCK
