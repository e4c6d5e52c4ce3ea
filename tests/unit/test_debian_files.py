"""The files of which the Debian package is made. ``python -m tests.install.debian_package`` builds and installs it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
FOLDER = TOP / "etc/debian"
SCRIPTS = ("build", "postinst", "postrm", "prerm")


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_one_of_the_shell_and_can_be_run(name: str) -> None:
    checked = subprocess.run(["sh", "-n", FOLDER / name], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert (FOLDER / name).stat().st_mode & 0o111


def test_what_is_packed_exists() -> None:
    text = (FOLDER / "build").read_text(encoding="utf-8")
    of_top = [each.replace('"', "").strip("/") for each in re.findall(r'\$top"?(/[\w."*/-]+)', text)]
    of_here = re.findall(r"\$here/([\w.-]+)", text)
    assert len(of_top) > 8
    assert [each for each in of_top if not (list(TOP.glob(each)) if "*" in each else (TOP / each).exists())] == []
    assert set(of_here) - {".."} == {each.name for each in FOLDER.iterdir()} - {"build"}


def test_every_blank_of_the_control_file_is_filled() -> None:
    blanks = set(re.findall(r"@[A-Z]+@", (FOLDER / "control.in").read_text(encoding="utf-8")))
    assert blanks == set(re.findall(r"@[A-Z]+@", (FOLDER / "build").read_text(encoding="utf-8")))


def test_units_are_stopped_restarted_and_forgotten_by_the_names_that_they_have() -> None:
    units = [path.name for kind in ("service", "socket") for path in TOP.glob(f"etc/systemd/*.{kind}")]
    for name in ("prerm", "postrm"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        patterns = re.findall(r"'(meter[\w.*-]*\.(?:service|socket))'", text)
        assert [unit for unit in units if not any(Path(unit).match(each) for each in patterns)] == []
