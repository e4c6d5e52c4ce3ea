"""Where clean machines get their packages from: the Debian archive and the Python index that this machine is configured for."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

SUITE = "bookworm"
"""Debian 12, for which the page is written."""

INCLUDED = "ca-certificates"

APT_FILES = ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/auth.conf.d")
NETWORK_FILES = ("etc/resolv.conf", "usr/local/share/ca-certificates", "etc/ssl/certs/ca-certificates.crt")
KEYRINGS = "usr/share/keyrings"


def debian(cache: Path, base: Path) -> Path:
    """Make a minimal Debian in ``base``, configured as this machine is; debootstrap makes it once, and ``cache`` keeps it."""
    cached = cache / f"debian-{SUITE}.tar.gz"
    if cached.exists():
        with tarfile.open(cached) as archive:
            archive.extractall(base, filter="fully_trusted")
    else:
        command = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", SUITE, str(base), mirror()]
        subprocess.run(command, check=True, stdout=sys.stderr)
        unfinished = cached.with_suffix(".unfinished")
        with tarfile.open(unfinished, "w:gz", compresslevel=1) as archive:
            archive.add(base, arcname=".")
        unfinished.rename(cached)
    (base / "etc/apt/sources.list").unlink(missing_ok=True)
    for each in (*APT_FILES, *NETWORK_FILES):
        _copy(Path("/") / each, base / each)
    for each in Path("/", KEYRINGS).glob("*"):
        _copy(each, base / KEYRINGS / each.name)
    return base


def mirror() -> str:
    """Return the first archive of this machine that has the suite."""
    listing = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(listing, check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        suite, _, address = line.partition(" ")
        if suite == SUITE:
            return address
    raise RuntimeError(f"no archive in /etc/apt has the suite {SUITE}")


class PythonIndex:
    """How pip finds packages here, for machines that find the distribution of this checkout besides."""

    def __init__(self, distributions: Path, requirement: str) -> None:
        options = self._options()
        self.directories = [distributions]
        for value in options.values():
            for word in value.split():
                path = Path(urlsplit(word).path if word.startswith("file:") else word)
                if path.is_absolute() and path.is_dir():
                    self.directories.append(path)
        # An index root may refer to files beside it.
        self.directories = [each.parent if each.name == "simple" else each for each in self.directories]
        self.files = [Path(word) for value in options.values() for word in value.split() if _is_file(word)]
        constraint = distributions / "constraint.txt"
        constraint.write_text(f"{requirement}\n")
        options["find-links"] = f"{distributions} {options.get('find-links', '')}".strip()
        options["constraint"] = f"{options.get('constraint', '')} {constraint}".strip()
        self.environment: Mapping[str, str] = {
            f"PIP_{name.upper().replace('-', '_')}": value for name, value in options.items()
        }

    @staticmethod
    def _options() -> dict[str, str]:
        """Return the options of pip that are configured here; those of the environment win."""
        command = [sys.executable, "-m", "pip", "config", "list"]
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found: dict[str, str] = {}
        lines = [line for line in done.stdout.splitlines() if "=" in line]
        for line in sorted(lines, key=lambda line: line.startswith(":env:")):
            name, _, value = line.partition("=")
            [text] = shlex.split(value)
            found[name.rpartition(".")[2]] = text.replace("\\n", " ")
        return found


def _is_file(word: str) -> bool:
    return word.startswith("/") and Path(word).is_file()


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
