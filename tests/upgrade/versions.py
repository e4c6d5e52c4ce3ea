"""Two versions of Meter: this checkout, and the wheel of an earlier commit in a virtual environment of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from meter.store.migrations import migrations
from tests.chaos import LEDGER

TOP = Path(__file__).parents[2]
VERSIONS = TOP / "var/versions"
STEPS = "meter/store/migrations/"


class NoCheckout(Exception):
    """The history that an earlier version is taken from is not there."""


@dataclass(frozen=True, slots=True)
class InstalledVersion:
    """A version of Meter: where its programs are, the pollsters of the campaign for it, and the version of its schema."""

    name: str
    programs: Path
    ledger: Path
    schema: int

    @property
    def python(self) -> Path:
        """The interpreter that imports this version."""
        return self.programs / "python"

    def program(self, name: str) -> Path:
        """Return the path of a program of this version."""
        return self.programs / name


def this_version() -> InstalledVersion:
    """Return the version of this checkout."""
    return InstalledVersion("this", Path(sys.executable).parent, LEDGER, len(migrations()))


def git(*words: str) -> str:
    """Return what git prints about the checkout; :class:`NoCheckout` if this is none, or it fails."""
    try:
        done = subprocess.run(["git", "-C", TOP, *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoCheckout("git is not installed: apt-get install --no-install-recommends git") from error
    if done.returncode:
        reason = done.stderr.strip()
        raise NoCheckout(f"an upgrade from an earlier commit needs a git checkout with its history: {reason}")
    return done.stdout


def steps_of(revision: str) -> list[tuple[int, str]]:
    """Return the numbers and names of the steps of the schema of a commit."""
    names = git("ls-tree", "--name-only", revision, STEPS).split()
    return sorted((int(found[1]), found[2]) for name in names if (found := re.search(r"/(\d{4})_(\w+)\.sql$", name)))


def schema_of(revision: str) -> int:
    """Return the version of the schema of a commit; :class:`NoCheckout` if no step of this checkout follows it."""
    steps = steps_of(revision)
    present = [(step.number, step.name) for step in migrations()]
    if not steps or steps != present[: len(steps)]:
        raise NoCheckout(
            f"the schema of {revision} is not an earlier version of that of this checkout: its steps are {steps}"
        )
    return len(steps)


def last_with_earlier_schema() -> str:
    """Return the last commit of the main line whose schema is an earlier version of that of this checkout."""
    present = [(step.number, step.name) for step in migrations()]
    for revision in git("rev-list", "--first-parent", "HEAD").split():
        if (steps := steps_of(revision)) and steps == present[: len(steps)] and len(steps) < len(present):
            return revision
    raise NoCheckout(
        f"no commit of this checkout's history has a schema before version {len(present)}: fetch more of it"
    )


def installed(revision: str) -> InstalledVersion:
    """Return the version of ``revision``: its wheel, built and installed with what it needs below ``var``, unless it is there already."""
    commit = git("rev-parse", "--short", f"{revision}^{{commit}}").strip()
    schema = schema_of(commit)
    directory = VERSIONS / commit
    source, environment, done = (directory / name for name in ("source", "environment", "installed"))
    if not done.exists():
        shutil.rmtree(directory, ignore_errors=True)
        source.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", TOP, "archive", commit], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
        venv.create(environment, with_pip=True)
        pip = [environment / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", directory, source], check=True)
        [wheel] = directory.glob("*.whl")
        # amqp: the past is published by a program of the earlier version (past.py).
        subprocess.run([*pip, "install", f"{wheel}[all]", "amqp"], check=True)
        done.touch()
    return InstalledVersion(commit, environment / "bin", source / "tests/chaos/ledger", schema)
