"""However Meter is installed, everything is there and ``twistd`` finds the daemons. Needs a package index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

TOP = Path(__file__).parents[2]
DAEMONS = {"meter", "meter-compute", "meter-central", "meter-collector", "meter-api"}
MADE = {"PKG-INFO", "setup.cfg"}
"""What setuptools adds to the source distribution."""

PLUGIN = "twisted/plugins/meter_daemons.py"
BUILT = shutil.ignore_patterns(".*", "var", "build", "dist", "*.egg-info", "__pycache__", "_build", "dropin.cache")


def run(*command: str | Path, cwd: Path) -> str:
    # A build that can be repeated has old times, at which Twisted's cache of plugins does not look twice.
    environment = os.environ | {"SOURCE_DATE_EPOCH": "315532800"}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree without what was built in it."""
    return shutil.copytree(TOP, tmp_path_factory.mktemp("checkout") / "meter", ignore=BUILT)


@pytest.fixture(scope="module")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, cwd=checkout)
    return folder


class Environment:
    """An empty virtual environment."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=Path("/"))
        self.folder = folder

    def pip(self, *arguments: str | Path) -> None:
        run(sys.executable, "-m", "pip", "--python", self.folder, *arguments, cwd=Path("/"))

    def commands(self) -> set[str]:
        """What twistd offers, far from the checkout."""
        text = run(self.folder / "bin/twistd", "--help", cwd=Path("/"))
        assert "Traceback" not in text
        return {line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()}


@pytest.fixture(scope="module")
def environment(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment into which the wheel was installed with its dependencies from the index."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    [wheel] = distributions.glob("*.whl")
    environment.pip("install", wheel)
    return environment


@pytest.fixture
def without_meter(environment: Environment) -> Iterator[Environment]:
    """The same without Meter, whose absence Twisted has written into its cache."""
    environment.pip("uninstall", "--yes", "meter-cloud")
    offered = environment.commands()
    assert "web" in offered
    assert not offered & DAEMONS
    return environment


def test_the_wheel_has_every_file_of_the_package_and_the_plugin(distributions: Path, checkout: Path) -> None:
    [wheel] = distributions.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {path.relative_to(checkout).as_posix() for path in (checkout / "meter").rglob("*") if path.is_file()}
    assert names == package | {PLUGIN}


def test_the_wheel_carries_the_license(distributions: Path) -> None:
    [wheel] = distributions.glob("*.whl")
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_the_distributions_have_the_name_that_is_free_on_the_index(distributions: Path) -> None:
    name = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"].replace("-", "_")
    assert {path.name.partition("-")[0] for path in distributions.iterdir()} == {name}


def test_the_source_distribution_is_the_source_tree(distributions: Path, checkout: Path) -> None:
    [archive] = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        names = {each.name.partition("/")[2] for each in members.getmembers() if each.isfile()}
    tree = {path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if path.is_file()}
    assert "etc/prometheus/alerts.yml" in tree
    made = {name for name in names if name in MADE or ".egg-info/" in name}
    assert names - made == {name for name in tree if ".egg-info/" not in name}


def test_all_dependencies_are_declared_and_the_daemons_found(environment: Environment) -> None:
    assert environment.commands() >= DAEMONS


@pytest.mark.parametrize("how", ["wheel", "folder", "editable"])
def test_the_daemons_are_found_when_installed_as(
    how: str, without_meter: Environment, distributions: Path, checkout: Path
) -> None:
    [wheel] = distributions.glob("*.whl")
    what = {"wheel": [wheel], "folder": [checkout], "editable": ["--editable", checkout]}[how]
    without_meter.pip("install", "--no-deps", *what)
    assert without_meter.commands() >= DAEMONS
