"""A copy of the checkout without what was built in it, and the distributions that are built of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.install.page import TOP

PYPROJECT = TOP / "pyproject.toml"


def distribution_name() -> str:
    """Return the name by which pip installs Meter."""
    return str(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["name"])


def copy_checkout(target: Path) -> Path:
    """Copy the files that belong to the project, changed and new ones too."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=TOP, check=True, capture_output=True, text=True)
    for name in filter(None, done.stdout.split("\0")):
        if (TOP / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, target / name)
    return target


def build(checkout: Path, directory: Path) -> Path:
    """Build wheel and source distribution in ``directory``; return the wheel."""
    environment = directory / "environment"
    distributions = directory / "distributions"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin/pip", "install", "--quiet", "build"], check=True)
    command = [environment / "bin/python", "-m", "build", "--outdir", distributions, checkout]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the distributions cannot be built:\n{done.stdout}{done.stderr}")
    [wheel] = distributions.glob("*.whl")
    return wheel


def version(wheel: Path) -> str:
    """Return the version of a wheel."""
    return wheel.name.split("-")[1]


def is_installed(wheel: Path, root: Path) -> bool:
    """Whether what is installed below ``root`` is exactly this wheel, not another distribution of that name and version."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith(".dist-info/RECORD")]
        wanted = {line for line in archive.read(name).decode().splitlines() if ".dist-info/" not in line}
    found = [path.read_text(encoding="utf-8") for path in root.glob(f"lib/python3*/site-packages/{name}")]
    return bool(found) and wanted <= set(found[0].splitlines())
