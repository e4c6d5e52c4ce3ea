"""One clean machine of the check: a root directory of its own, its own network and host name, and its services."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.install.page import DOMAIN
from tests.install.services import Services
from tests.install.services import answer

SHIM = Path(__file__).with_name("shim.sh")
REQUESTS = "run/install-check"
STAND_INS = ("usr/local/sbin/systemctl", "usr/local/bin/scp")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BLOCK_SECONDS = 1200.0

DPKG_QUICKLY = "force-unsafe-io\n"
"""A machine that is thrown away needs no data on the disk."""

NO_SERVICES = "#!/bin/sh\nexit 101\n"
"""``policy-rc.d``: packages start no services when they are installed; ``systemctl enable --now`` does."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a script ended, and what it printed."""

    status: int
    output: str


class Machine:
    """A machine ``name`` whose files are those of ``lower`` and what it has changed, in ``directory``.

    It exists in the mount and process namespaces of this process, and goes with them.
    """

    def __init__(self, name: str, lower: Sequence[Path], directory: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.directory = directory
        self.root = directory / "root"
        self.changes = directory / "changes"
        self._environment = {
            "PATH": PATH,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            **environment,
        }
        for each in (self.root, self.changes, directory / "work", directory / "logs"):
            each.mkdir(parents=True)
        layers = ":".join(map(str, lower))
        options = f"lowerdir={layers},upperdir={self.changes},workdir={directory / 'work'}"
        _run("mount", "-t", "overlay", "overlay", "-o", options, str(self.root))
        for each in ("proc", "sys", "dev"):
            _run("mount", "--rbind", f"/{each}", str(self.root / each))
        _run("mount", "-t", "tmpfs", "tmpfs", str(self.root / "run"))
        self._prepare()
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && ip link set lo up && exec sleep infinity"]
        )
        self.pid = self._holder.pid
        self.services = Services(self.root, directory / "logs", self.entering)

    def _prepare(self) -> None:
        (self.root / REQUESTS).mkdir()
        (self.root / "run/lock").mkdir()
        for each in STAND_INS:
            shutil.copy(SHIM, self.root / each)
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        (self.root / "etc/dpkg/dpkg.cfg.d/install-check").write_text(DPKG_QUICKLY)
        policy = self.root / "usr/sbin/policy-rc.d"
        policy.write_text(NO_SERVICES)
        policy.chmod(0o755)

    def write_hosts(self, addresses: Mapping[str, str]) -> None:
        """Let the names of all machines be known; those of this machine's network come from ``/etc/resolv.conf``."""
        lines = [f"{address} {name}.{DOMAIN} {name}" for name, address in addresses.items()]
        own = [] if self.name in addresses else [f"127.0.1.1 {self.name}"]
        (self.root / "etc/hosts").write_text("\n".join(["127.0.0.1 localhost", *own, *lines, ""]))

    def bind(self, path: Path, inside: str) -> None:
        """Show a directory of this machine in the other one, read-only."""
        target = self.root / inside.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(path), str(target))
        _run("mount", "-o", "remount,ro,bind", str(target))

    def entering(self, *, online: bool = False) -> Sequence[str]:
        """Return the words before a command that is to run there, as root; ``online`` in the network of this machine."""
        network = [] if online else [f"--net=/proc/{self.pid}/ns/net"]
        return ["nsenter", f"--uts=/proc/{self.pid}/ns/uts", *network, "chroot", str(self.root)]

    def run(
        self,
        script: str,
        *,
        online: bool = False,
        copy: Callable[[Sequence[str], str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = BLOCK_SECONDS,
    ) -> Ran:
        """Run a script as root, and answer what it asks of ``systemctl`` and ``scp`` meanwhile. ``copy`` does the latter."""
        output = self.directory / "logs/output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*self.entering(online=online), "bash", "-e", "-o", "pipefail", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
            )
            deadline = time.monotonic() + seconds
            while process.poll() is None:
                answer(self.root / REQUESTS, self.services, copy)
                if time.monotonic() > deadline:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    file.write(f"\n(stopped after {seconds:g} s)\n".encode())
                time.sleep(0.05)
        return Ran(process.returncode, output.read_text(errors="replace"))

    def stop(self) -> None:
        """Stop its services and its network, and unmount what is mounted below its root."""
        self.services.stop_all()
        self._holder.kill()
        self._holder.wait()
        _run("umount", "--recursive", "--lazy", str(self.root))


class Switch:
    """A network that machines can be connected to, and nothing else."""

    def __init__(self) -> None:
        script = "ip link set lo up && ip link add bridge type bridge && ip link set bridge up && exec sleep infinity"
        self._holder = subprocess.Popen(["unshare", "--net", "sh", "-c", script])
        self._number = 0

    def connect(self, pid: int, address: str) -> None:
        """Give the network of the process ``pid`` an address in this one."""
        self._number += 1
        enter = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]
        port = f"port{self._number}"
        _patiently(*enter, "ip", "link", "show", "bridge")
        _run(*enter, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _run(*enter, "ip", "link", "set", port, "master", "bridge", "up")
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        _run(*inside, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        _run(*inside, "ip", "link", "set", "eth0", "up")

    def stop(self) -> None:
        """Take the network away."""
        self._holder.kill()
        self._holder.wait()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")


def _patiently(*command: str) -> None:
    """Run a command until it succeeds, for some seconds: it waits for a process that has just started."""
    for _ in range(100):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    _run(*command)
