"""tox finds Pythons where version managers keep them."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

TOXFILE = Path(__file__).parents[2] / "toxfile.py"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, and no variable that names another place."""
    for name in ("TOX_DISCOVER", "PYENV_ROOT", "MISE_DATA_DIR", "ASDF_DATA_DIR", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def installed(folder: Path, version: str) -> str:
    """Pretend that a Python is installed in ``folder``; return its program."""
    program = folder / f"bin/python{version}"
    program.parent.mkdir(parents=True)
    program.touch()
    return str(program)


def discovered() -> list[str]:
    runpy.run_path(str(TOXFILE))
    return os.environ["TOX_DISCOVER"].split()


def test_without_a_version_manager_nothing_is_added() -> None:
    assert discovered() == []


@pytest.mark.parametrize(
    "folder",
    [
        ".pyenv/versions/3.12.1",
        ".asdf/installs/python/3.12.11",
        ".local/share/mise/installs/python/3.12.11",
        ".local/share/uv/python/cpython-3.12.11-linux-x86_64-gnu",
    ],
)
def test_a_python_in_the_users_home_is_found(home: Path, folder: str) -> None:
    assert discovered() == []
    del os.environ["TOX_DISCOVER"]
    program = installed(home / folder, "3.12")
    installed(home / folder / "../3.1.2", "3.1")
    assert discovered() == [program]


def test_a_version_manager_elsewhere_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(home / "opt/pyenv"))
    found = [installed(home / f"opt/pyenv/versions/{version}.0", version) for version in ("3.12", "3.13")]
    assert discovered() == found


def test_a_version_without_a_program_is_left_out(home: Path) -> None:
    (home / ".pyenv/versions/3.12.1").mkdir(parents=True)
    assert discovered() == []


def test_what_the_user_has_set_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(home / ".pyenv/versions/3.12.1", "3.12")
    monkeypatch.setenv("TOX_DISCOVER", "/opt/python3.12")
    assert discovered() == ["/opt/python3.12"]
