"""The two commands of the README, in a clean Debian that has what the README names."""

from __future__ import annotations

import re
import shutil
import time
from typing import Any

from tests.install.outcome import StepFailed
from tests.install.outcome import say

PREPARE = "apt-get update && apt-get install --yes --no-install-recommends make python3"
SOURCES = "srv/meter"
SECONDS = 900.0
TESTS_SECONDS = 7200.0

ALL = "1"
"""All tests."""

PASSED = re.compile(r"\b\d+ passed[^=\n]*\b")

RUN = f"""
cd /{SOURCES}
make run > make-run.log 2>&1 &
run=$!
for second in $(seq {SECONDS:g}); do
    if grep --quiet --extended-regexp 'stored [1-9][0-9]* samples' make-run.log; then
        kill $run
        wait $run || true
        exit 0
    fi
    kill -0 $run
    sleep 1
done
exit 1
"""
"""``make run`` until the first sample is stored, and its end."""


def readme_commands(campaign: Any, *, tests: str) -> int:
    """Run ``make run`` until the first sample is stored, and ``make test``; return how many were run.

    ``tests`` is empty, to leave ``make test`` out; ``1`` for all of it; or names those tests that alone are run after its set-up.
    """
    machine = campaign.machine("readme")
    shutil.copytree(campaign.sources, machine.root / SOURCES)
    # Packages are downloaded in the network of this machine, where the ports of the daemon may be taken.
    steps = [
        ("make and Python", PREPARE, True),
        ("make setup-run", f"cd /{SOURCES} && make setup-run", True),
        ("make run", RUN, False),
    ]
    if tests not in ("", "0"):
        versioned = f"apt-get install --yes git && cd /{SOURCES} && git init --quiet && git add ."
        steps.append(("make setup-test", f"{versioned} && make setup-test", True))
        command = "make test" if tests == ALL else f".venv/bin/tox -e tests -- {tests}"
        steps.append((command, f"cd /{SOURCES} && {command}", True))
    for name, script, online in steps:
        began = time.monotonic()
        ran = machine.run(script, online=online, seconds=TESTS_SECONDS if "test" in name else SECONDS)
        if ran.status:
            log = machine.root / SOURCES / "make-run.log"
            more = log.read_text(errors="replace")[-4000:] if log.exists() else ""
            raise StepFailed(
                f"FAILED: README.rst: status {ran.status}\n{script}\n--- output\n{ran.output[-6000:]}\n{more}"
            )
        passed = "".join(f", {each}" for each in PASSED.findall(ran.output))
        say(f"README.rst: {name}: {time.monotonic() - began:.0f} s{passed}")
    return 2 if tests == ALL else 1
