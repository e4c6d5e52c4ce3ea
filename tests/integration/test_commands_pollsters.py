"""``python -m meter.pollsters``, on the host that libvirt has built in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def pollsters(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "meter.pollsters", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_a_trial_is_a_table_of_samples_without_bus_or_configuration() -> None:
    done = pollsters("try", "cpu", "--uri", "test:///default")
    header, line = done.stdout.splitlines()
    assert header.split() == ["METER", "TYPE", "VOLUME", "UNIT", "RESOURCE", "PROJECT", "TIME"]
    assert line.split()[0:2] == ["cpu", "cumulative"]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_poll_shows_what_takes_two() -> None:
    done = pollsters("try", "--uri", "test:///default", "--again", "1.1", "cpu")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["cpu", "cpu_util", "cpu.delta"]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["try", "disk", "--uri", "test:///default"], 1, "disk is off here: libvirt's test driver tells nothing"),
        (["try", "cpu", "--uri", "qemu+unix:///session?socket=/nowhere"], 1, "cpu: libvirt at"),
        (["try", "cpus"], 3, "no pollster is called 'cpus'"),
        ([], 3, "say what to do"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], status: int, complaint: str) -> None:
    done = pollsters(*arguments)
    assert done.returncode == status
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_says_what_works_here_and_why_not(tmp_path: Path) -> None:
    config = tmp_path / "meter.toml"
    config.write_text(f'[meter]\nstate_dir = "{tmp_path}"\n[compute]\nlibvirt_uri = "test:///default"\n')
    listed = pollsters("--config", str(config), "list").stdout
    assert "instance " in listed
    assert "libvirt's test driver tells nothing of this" in listed
