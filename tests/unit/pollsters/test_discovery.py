"""A copy of the example with three names changed is found in a directory of another distribution."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import meter.pollsters.example

LISTING = """
from twisted.plugin import getPlugins
import meter.pollsters
from meter.interfaces import IComputePollster
from meter.plugins.registry import COMPUTE, find
print(sorted(plugin.name for plugin in getPlugins(IComputePollster, meter.pollsters)))
print(sorted((each.name, each.state) for each in find([COMPUTE]) if each.name in ("tape", "example")))
"""


def test_module_in_a_directory_of_another_distribution_is_found(tmp_path: Path) -> None:
    plugins = tmp_path / "meter/pollsters"
    plugins.mkdir(parents=True)
    source = Path(meter.pollsters.example.__file__).read_text()
    (plugins / "tape.py").write_text(
        source.replace('"example.load"', '"tape.load"')
        .replace('name = "example"', 'name = "tape"')
        .replace("\nexample = ", "\ntape = ")
    )
    done = subprocess.run(
        [sys.executable, "-c", LISTING],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    by_twisted, by_registry = done.stdout.splitlines()
    assert "'tape'" in by_twisted
    assert by_registry == "[('example', 'pending'), ('tape', 'pending')]"
