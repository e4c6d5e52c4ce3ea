"""A clean Debian in a directory, made by debootstrap, with the package sources of this host and a network of its own for daemons."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APT = (
    "sources.list",
    "sources.list.d",
    "apt.conf.d",
    "auth.conf.d",
    "keyrings",
    "preferences.d",
    "trusted.gpg",
    "trusted.gpg.d",
)
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


class Failed(Exception):
    """A command that failed, with its output."""


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Return the output of ``command``."""
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )
    if ended.returncode:
        raise Failed(
            f"{' '.join(map(str, command))}\nstatus {ended.returncode}\n{ended.stdout[-6000:]}{ended.stderr[-6000:]}"
        )
    return ended.stdout + ended.stderr


def codename() -> str:
    """The release of Debian that this host runs."""
    lines = dict(each.split("=", 1) for each in Path("/etc/os-release").read_text().splitlines() if "=" in each)
    return lines["VERSION_CODENAME"].strip('"')


def mirror(release: str) -> str:
    """Where this host's apt finds ``release``."""
    targets = run("apt-get", "indextargets", "--format", "$(CREATED_BY) $(CODENAME) $(REPO_URI)").splitlines()
    found = [each.split()[2] for each in targets if each.startswith(f"Packages {release} ")]
    if not found:
        raise Failed(f"apt of this host has no source of {release}")
    return found[0]


class CleanDebian:
    """Debian in ``directory``; ``close`` unmounts and deletes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._mounted: list[Path] = []
        self._network: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Make it, as small as it can be."""
        release = codename()
        run(
            "debootstrap",
            "--variant=minbase",
            "--include=ca-certificates,iproute2",
            release,
            self.directory,
            mirror(release),
        )
        shutil.rmtree(self / "etc/apt")
        (self / "etc/apt").mkdir()
        for each in APT:
            source = Path("/etc/apt", each)
            if source.is_dir():
                shutil.copytree(source, self / "etc/apt" / each)
            elif source.exists():
                shutil.copy(source, self / "etc/apt" / each)
        for name in filter(os.path.exists, NAMES):
            shutil.copy(os.path.realpath(name), self / name.lstrip("/"))
        # Itself a mount, as unshare wants the root to be.
        for source, target in (
            (self.directory, self.directory),
            (Path("/proc"), self / "proc"),
            (Path("/dev"), self / "dev"),
        ):
            run("mount", "--rbind", source, target)
            self._mounted.append(target)
            run("mount", "--make-rprivate", target)
        self._network = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up; exec sleep infinity"])

    def __truediv__(self, path: str) -> Path:
        return self.directory / path.lstrip("/")

    def run(self, *command: str, environment: dict[str, str] | None = None) -> str:
        """Return the output of ``command`` in it, run by root with the network of this host."""
        return run(
            "chroot", self.directory, *command, environment={"PATH": PATH, "LANG": "C.UTF-8"} | (environment or {})
        )

    def apt(self, *arguments: str) -> str:
        """Return the output of apt-get."""
        return self.run("apt-get", "-q", "-y", *arguments, environment={"DEBIAN_FRONTEND": "noninteractive"})

    def isolated(self, *command: str) -> list[str]:
        """Return the command line that runs ``command`` in it with a network of its own."""
        assert self._network is not None
        return ["nsenter", f"--net=/proc/{self._network.pid}/ns/net", "chroot", str(self.directory), *command]

    def as_meter(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in it as user *meter*, beside the daemons."""
        return ran(self.isolated("runuser", "-u", "meter", "--", *command))

    def close(self) -> None:
        """Delete it."""
        if self._network is not None:
            self._network.kill()
            self._network.wait()
        for each in reversed(self._mounted):
            run("umount", "--lazy", each)
        self._mounted.clear()
        run("rm", "--recursive", "--force", "--one-file-system", self.directory)


def ran(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Return what became of ``command``."""
    environment = {"PATH": PATH, "LANG": "C.UTF-8"}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )
