"""Executes the page on clean machines: one host, then a region, then the two commands of the README."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.install import checkout
from tests.install.archives import PythonIndex
from tests.install.archives import debian
from tests.install.keystone import start_keystone
from tests.install.machine import Machine
from tests.install.machine import Switch
from tests.install.outcome import StepFailed
from tests.install.outcome import say
from tests.install.page import DOMAIN
from tests.install.page import TOP
from tests.install.page import blocks
from tests.install.plan import REGION
from tests.install.plan import SINGLE
from tests.install.plan import PlannedBlock
from tests.install.plan import planned
from tests.install.readme import readme_commands

CACHE = TOP / "var/install-check"
KEYSTONE = "keystone"
ADDRESSES = {name: f"192.0.2.{number}" for number, name in enumerate((*REGION, KEYSTONE), 11)}
STAGE = "stage"
PARTS = ("single", "region", "readme")

TESTS = "METER_INSTALL_CHECK_TESTS"
"""``1`` also runs ``make test``, which takes long; names of tests run those alone, after its set-up: ``tests/unit``."""


class Campaign:
    """The machines, and what was executed on them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.directory = Path(tempfile.mkdtemp(prefix="meter-install-"))
        # Never what is mounted there: these are the devices of this machine, too.
        stack.callback(subprocess.run, ["rm", "-rf", "--one-file-system", str(self.directory)], check=False)
        self._mount_directory()
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "output.log").write_text("")
        say("a minimal Debian, and the distributions of this checkout")
        self.base = debian(CACHE, self.directory / "debian")
        self.sources = checkout.copy_checkout(self.directory / "checkout")
        self.wheel = checkout.build(self.sources, self.directory)
        self.name = checkout.distribution_name()
        self.index = PythonIndex(self.wheel.parent, f"{self.name}=={checkout.version(self.wheel)}")
        self.stage: Machine | None = None
        self.machines: dict[str, Machine] = {}
        self.switch: Switch | None = None
        self.executed = 0

    def _mount_directory(self) -> None:
        """Have a file system of its own for the machines, as an overlay cannot be above another."""
        kind = subprocess.run(["stat", "-f", "-c", "%T", self.directory], capture_output=True, text=True, check=True)
        if "overlay" in kind.stdout:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.directory], check=True)

    def machine(self, name: str) -> Machine:
        """Return the machine ``name``, which exists from its first block on."""
        if name not in self.machines:
            above_stage = name != STAGE and self.stage is not None and name not in ("broker", "db", "readme")
            lower = [self.stage.changes, self.base] if above_stage and self.stage else [self.base]
            made = Machine(name, lower, self.directory / name, self.index.environment)
            self._stack.callback(made.stop)
            for each in self.index.directories:
                made.bind(each, str(each))
            for each in self.index.files:
                target = made.root / str(each).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(each.read_bytes())
            made.write_hosts(ADDRESSES if name in ADDRESSES else {})
            if name in ADDRESSES:
                self._connect(made.pid, name)
            self.machines[name] = made
        return self.machines[name]

    def _connect(self, pid: int, name: str) -> None:
        if self.switch is None:
            self.switch = Switch()
            self._stack.callback(self.switch.stop)
        self.switch.connect(pid, ADDRESSES[name])

    def execute(self, each: PlannedBlock, environment: Mapping[str, str]) -> None:
        """Execute one block where the text before it says; :class:`StepFailed` if it fails."""
        block = each.block
        name = STAGE if each.shared else block.hosts[0]
        for host in block.hosts if not each.shared else ():
            self.machine(host)
        machine = self.machine(name)
        if each.shared:
            self.stage = machine
        began = time.monotonic()
        ran = machine.run(block.text, online=each.online, copy=partial(self._copy, machine), environment=environment)
        say(f"{block.place} on {', '.join(block.hosts)}: {time.monotonic() - began:.0f} s")
        ended = [service for each in self.machines.values() for service in each.services.ended()]
        if ran.status or ended:
            raise StepFailed(self._report(each, ran.status, ran.output, ended))
        self.executed += 1
        with (CACHE / "output.log").open("a") as log:
            log.write(f"--- {block.place}\n{block.text}\n{ran.output}\n")

    def _copy(self, source: Machine, arguments: Sequence[str], directory: str) -> None:
        """Copy files from one machine to another, as ``scp`` does between hosts."""
        *files, target = arguments
        host, _, path = target.partition(":")
        other = self.machine(host.removesuffix(f".{DOMAIN}"))
        for file in files:
            origin = source.root / os.path.join(directory, file).lstrip("/")
            there = other.root / path.lstrip("/")
            there = there / origin.name if there.is_dir() else there
            there.write_bytes(origin.read_bytes())
            there.chmod(origin.stat().st_mode)

    def _report(self, each: PlannedBlock, status: int, output: str, ended: Sequence[str]) -> str:
        lines = [f"FAILED: {each.block.place}, on {', '.join(each.block.hosts)}: status {status}", each.block.text]
        lines += ["--- output", output[-6000:]]
        for machine in self.machines.values():
            for service in machine.services.names:
                how = " (has ended)" if service in ended else ""
                lines.append(f"--- log of {service} on {machine.name}{how}\n{machine.services.log(service)[-2500:]}")
        return "\n".join(lines)


def parts_of(each: PlannedBlock) -> set[str]:
    """Return which parts need a block."""
    if each.shared:
        return {"single", "region"}
    return {"single" if each.block.hosts == (SINGLE,) else "region"}


def main(arguments: Sequence[str]) -> int:
    """Execute the parts that ``arguments`` name, or all; return the exit status."""
    if unknown := set(arguments) - set(PARTS):
        say(f"there is no part {', '.join(sorted(unknown))}: name some of {', '.join(PARTS)}, or none for all")
        return 3
    parts = set(arguments or PARTS)
    plan = planned(blocks())
    wanted = [each for each in plan if not each.reason and parts_of(each) & parts]
    with ExitStack() as stack:
        campaign = Campaign(stack)
        environment: dict[str, str] = {}
        try:
            for each in wanted:
                if each.block.section == "Keystone" and not environment:
                    environment = start_keystone(stack, campaign)
                campaign.execute(each, environment)
                if each.shared and "pip install" in each.block.text:
                    root = campaign.machine(STAGE).root / "opt/meter"
                    if not checkout.is_installed(campaign.wheel, root):
                        raise StepFailed(
                            f"{each.block.place}: pip installed another {campaign.name} than this checkout's"
                        )
            commands = readme_commands(campaign, tests=os.environ.get(TESTS, "")) if "readme" in parts else 0
        except StepFailed as failed:
            say(str(failed))
            return 1
        left = [each for each in plan if each.reason]
        say(f"{campaign.executed} of {len(plan)} blocks executed, and {commands} commands of the README; not executed:")
        for each in left:
            say(f"  {each.block.place}: {each.reason}")
    return 0
