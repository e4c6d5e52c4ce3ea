"""``python -m meter.pollsters`` with libvirt's test driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def pollsters(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "meter.pollsters", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_try_prints_a_table_of_samples_without_bus_or_configuration() -> None:
    done = pollsters("try", "cpu", "--uri", "test:///default")
    header, line = done.stdout.splitlines()
    assert header.split() == ["METER", "TYPE", "VOLUME", "UNIT", "RESOURCE", "PROJECT", "TIME"]
    assert line.split()[0:2] == ["cpu", "cumulative"]
    assert (done.returncode, done.stderr) == (0, "")


def test_try_with_again_shows_meters_that_need_two_polls() -> None:
    done = pollsters("try", "--uri", "test:///default", "--again", "1.1", "cpu")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["cpu", "cpu_util", "cpu.delta"]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (
            ["try", "disk", "--uri", "test:///default"],
            1,
            "disk is not applicable: libvirt's test driver does not provide",
        ),
        (["try", "cpu", "--uri", "qemu+unix:///session?socket=/nowhere"], 1, "cpu: libvirt at"),
        (["try", "cpus"], 3, "no pollster matches 'cpus'"),
        ([], 3, "give a subcommand"),
    ],
)
def test_errors_are_reported_with_an_exit_status(arguments: list[str], status: int, complaint: str) -> None:
    done = pollsters(*arguments)
    assert done.returncode == status
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_list_prints_each_pollster_with_its_state_and_reason(tmp_path: Path) -> None:
    config = tmp_path / "meter.toml"
    config.write_text(f'[meter]\nstate_dir = "{tmp_path}"\n[compute]\nlibvirt_uri = "test:///default"\n')
    listed = pollsters("--config", str(config), "list").stdout
    assert "instance " in listed
    assert "libvirt's test driver does not provide these statistics" in listed
