"""Builds the Debian package; installs, upgrades, removes and purges it in a clean Debian, and runs its daemons as systemd would.

::

    python -m tests.install.debian_package [--lintian] [--package FILE]

Run as root. Each step is asserted, and printed when it has passed; the first that fails ends the campaign with status 1. Needs what
``etc/dev/system-packages PYTHON install`` installs, and sources of packages for apt and pip.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.install.clean_debian import CleanDebian
from tests.install.clean_debian import Failed
from tests.install.clean_debian import run

TOP = Path(__file__).parents[2]
RUNNER = "/usr/local/lib/service_restrictions.py"
DAEMONS = {"meter", "meter-compute", "meter-central", "meter-collector", "meter-api"}
NEWER = "99.0"
GONE, NEW = "integral_hours", "of_the_newer_version"  # in meter/testing, which no daemon imports
SETTINGS = {"libvirt_uri": '"test:///default"', "interval_seconds": "5.0"}
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())"

SYSTEMCTL = """#!/bin/sh
echo "$@" >>/var/log/systemctl
case "$*" in
*list-units*) printf '%s loaded active running Meter\\n' meter-collector@2.service meter-compute.service ;;
esac
"""
"""A systemctl in place of the real one, that records what it is asked, and of which two daemons run."""


def until(condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:.0f} s for {what if isinstance(what, str) else what()}")
        time.sleep(0.5)


def step(text: str) -> None:
    sys.stdout.write(f"ok: {text}\n")
    sys.stdout.flush()


def notified(manager: socket.socket, process: subprocess.Popen[bytes]) -> str:
    """What the service manager is told first; nothing within two minutes, or if the daemon ends before."""
    for _ in range(120):
        try:
            return manager.recv(65536).decode()
        except TimeoutError:
            if process.poll() is not None:
                break
    return ""


@contextmanager
def service(debian: CleanDebian, unit: str) -> Iterator[None]:
    """Run the daemon of ``unit`` under its restrictions, from the notification that it is ready to its end in order."""
    address = debian / "run/notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, tempfile.TemporaryFile() as log:
        manager.bind(str(address))
        address.chmod(0o777)
        manager.settimeout(1)
        command = debian.isolated("/usr/bin/python3", RUNNER, f"/usr/lib/systemd/system/{unit}")
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": "/run/notify"}
        process = subprocess.Popen(
            command, env=variables, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

        def wrong(what: str) -> Failed:
            log.seek(0)
            return Failed(f"{unit}: {what}\n{log.read().decode(errors='replace')[-4000:]}")

        try:
            first = notified(manager, process)
            if "READY=1" not in first.split("\n"):
                raise wrong(f"it ended with {process.poll()}" if process.poll() else f"it was not ready: {first}")
            status = Path(f"/proc/{process.pid}/status").read_text()
            user = run("chroot", debian.directory, "id", "--user", "meter").strip()
            if re.findall(r"^(?:Uid|CapEff):\t(\w+)", status, re.M) != [user, "0" * 16]:
                raise wrong("it does not run as user meter without capabilities")
            yield
            process.send_signal(signal.SIGTERM)
            if (ended := process.wait(120)) not in (0, -signal.SIGTERM):
                raise wrong(f"it ended with {ended}")
            log.seek(0)
            if "Traceback" in (text := log.read().decode(errors="replace")):
                raise wrong(f"it logged {text.count('Traceback')} tracebacks")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


class Campaign:
    """The steps, in their order."""

    def __init__(self, directory: Path, package: Path | None, *, lintian: bool) -> None:
        self._directory = directory
        self._lintian = lintian
        self._built = package
        self.debian = CleanDebian(directory / "debian")
        self._samples = 0

    def run(self) -> None:
        """Run all of them."""
        first = self.build()
        self.debian.make()
        step("a clean Debian was made")
        self.install(first)
        self.each_unit()
        self.a_host()
        self.upgrade(self.newer(first))
        self.a_host()
        self.remove()
        self.purge()

    def build(self) -> Path:
        package = self._built
        if package is None:
            folder = self._directory / "build"
            run(TOP / "etc/debian/build", folder, environment={**os.environ})
            [package] = folder.glob("*.deb")
        step(f"there is a package: {package.name}, {package.stat().st_size / 2**20:.0f} MiB")
        if self._lintian:
            run("lintian", "--fail-on=error", "--allow-root", package)
            step("lintian finds no error")
        return package

    def newer(self, package: Path) -> Path:
        """The same package with a higher version, in which a module of Meter is missing and another new."""
        tree, made = self._directory / "newer", self._directory / f"meter-cloud_{NEWER}.deb"
        run("dpkg-deb", "--raw-extract", package, tree)
        control = tree / "DEBIAN/control"
        control.write_text(re.sub(r"^Version: .*", f"Version: {NEWER}", control.read_text(), flags=re.M))
        [gone] = tree.rglob(f"meter/testing/{GONE}.py")
        gone.rename(gone.with_name(f"{NEW}.py"))
        run("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, made)
        shutil.rmtree(tree)
        return made

    def put(self, package: Path) -> str:
        shutil.copy(package, self.debian / "tmp")
        return f"/tmp/{package.name}"

    def install(self, package: Path) -> None:
        debian = self.debian
        debian.apt("update")
        debian.apt("install", "--no-install-recommends", self.put(package))
        assert debian.run("getent", "passwd", "meter").split(":")[5:] == ["/var/lib/meter", "/usr/sbin/nologin\n"]
        seen = debian.run(
            "stat", "-c", "%a %U %G", "/etc/meter", "/etc/meter/meter.toml", "/var/lib/meter"
        ).splitlines()
        assert seen == ["750 root meter", "640 root meter", "700 meter meter"], seen
        assert (debian / "/etc/meter/meter.toml").read_bytes() == (TOP / "etc/meter.toml").read_bytes()
        assert not list((debian / "etc/systemd/system").rglob("meter*")), "a unit was enabled"
        self.installed_well()
        step("installed: user, directories, configuration, commands, caches; no unit is enabled")
        shutil.copy(TOP / "tests/service_restrictions.py", debian / RUNNER)

    def installed_well(self) -> None:
        debian = self.debian
        assert list((debian / "opt/meter/lib").rglob("meter/taps/__pycache__/main.*.pyc")), "nothing is compiled"
        assert list((debian / "opt/meter/lib").rglob("twisted/plugins/dropin.cache")), "Twisted has written no cache"
        offered = debian.as_meter("/opt/meter/bin/twistd", "--help")
        names = {line.split()[0] for line in offered.stdout.partition("Commands:")[2].splitlines() if line.strip()}
        assert names >= DAEMONS, offered
        assert "Traceback" not in offered.stdout + offered.stderr, offered
        for command in sorted(each.name for each in (debian / "usr/bin").glob("meter-*")):
            shown = debian.as_meter(command, "--help")
            assert shown.returncode == 0, shown
            assert command in shown.stdout, shown

    def each_unit(self) -> None:
        debian = self.debian
        file = debian / "/etc/meter/meter.toml"
        text = file.read_text()
        for name, value in SETTINGS.items():
            text, number = re.subn(rf"^#{name} = .*", f"{name} = {value}", text, count=1, flags=re.M)
            assert number == 1, name
        file.write_text(text)
        for name in ("api-1.toml", "collector-1.toml"):
            debian.run("cp", "--preserve", "/etc/meter/meter.toml", f"/etc/meter/{name}")
        for path in sorted((TOP / "etc/systemd").glob("*.service")):
            unit = path.name
            if "@" in unit:
                unit = unit.replace("@", "@1")
                shutil.copy(path, debian / "usr/lib/systemd/system" / unit)
            with service(debian, unit):
                pass
            if "@" in path.name:
                (debian / "usr/lib/systemd/system" / unit).unlink()
            step(f"{unit} became ready and stopped, as user meter and under its restrictions")
        for name in ("api-1.toml", "collector-1.toml"):
            (debian / "etc/meter" / name).unlink()

    def a_host(self) -> None:
        """All daemons in one process, with the embedded PostgreSQL and libvirt's test driver."""
        with service(self.debian, "meter.service"):
            before = self._samples
            until(lambda: self.samples() > before, "new samples")
            # Until the next heartbeat it says what the daemon lacked when it started.
            until(
                lambda: self.doctor() == [], lambda: f"meter-doctor to say that all is well, not {self.doctor()}", 240.0
            )
        step(f"meter.service stored samples, {self._samples} after {before}, and meter-doctor says that all is well")

    def doctor(self) -> list[str]:
        """What meter-doctor finds wrong."""
        answer = self.debian.as_meter("meter-doctor", "--json")
        assert "Traceback" not in answer.stderr, answer.stderr
        found = [each["text"] for each in json.loads(answer.stdout)["findings"] if each["level"] != "ok"]
        assert bool(found) == bool(answer.returncode), answer
        return found

    def samples(self) -> int:
        """How many samples of a meter of the test driver the API has."""
        url = "http://127.0.0.1:8777/v2/meters/memory/statistics"
        answer = self.debian.as_meter("/opt/meter/bin/python", "-c", ASK, url)
        rows = json.loads(answer.stdout) if answer.returncode == 0 else []
        self._samples = rows[0]["count"] if rows else 0
        return self._samples

    def upgrade(self, package: Path) -> None:
        debian = self.debian
        self.record_systemctl()
        configured = (debian / "/etc/meter/meter.toml").read_text()
        debian.apt("install", "--no-install-recommends", self.put(package))
        assert (
            debian.run("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "meter-cloud")
            == f"{NEWER} installed"
        )
        assert (debian / "/etc/meter/meter.toml").read_text() == configured
        assert not list((debian / "opt/meter/lib").rglob(f"meter/testing/**/{GONE}.*")), (
            "a module of the older version is left"
        )
        assert list((debian / "opt/meter/lib").rglob(f"meter/testing/**/{NEW}.*.pyc")), "the new module is not compiled"
        self.installed_well()
        assert self.asked("restart") == ["meter-collector@2.service", "meter-compute.service"], self.asked("restart")
        assert self.asked("start") == []
        assert self.asked("stop") == []
        step("upgraded: the configuration is kept, and the daemons that ran were restarted, and no others")

    def record_systemctl(self) -> None:
        (self.debian / "usr/bin/systemctl").write_text(SYSTEMCTL)
        (self.debian / "usr/bin/systemctl").chmod(0o755)
        (self.debian / "run/systemd/system").mkdir(parents=True)

    def asked(self, verb: str) -> list[str]:
        """The units for which systemctl was asked to do ``verb`` since the last time."""
        lines = (self.debian / "var/log/systemctl").read_text().splitlines()
        words = [[each for each in line.split() if not each.startswith("-")] for line in lines]
        return [unit for each in words if each[:1] == [verb] for unit in each[1:]]

    def remove(self) -> None:
        debian = self.debian
        (debian / "var/log/systemctl").unlink()
        wants = debian / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / "meter-compute.service").symlink_to("/usr/lib/systemd/system/meter-compute.service")
        state = sorted(each.name for each in (debian / "var/lib/meter").iterdir())
        debian.apt("remove", "meter-cloud")
        assert self.asked("stop") == ["meter-collector@2.service", "meter-compute.service"], self.asked("stop")
        assert not (debian / "opt/meter").exists()
        assert not list((debian / "usr/bin").glob("meter-*"))
        assert (debian / "/etc/meter/meter.toml").exists()
        assert sorted(each.name for each in (debian / "var/lib/meter").iterdir()) == state
        step(f"removed: the daemons were stopped; the configuration and {', '.join(state)} are kept")

    def purge(self) -> None:
        debian = self.debian
        told = debian.apt("purge", "meter-cloud")
        assert "Kept: /var/lib/meter" in told, told
        assert not (debian / "etc/meter").exists()
        assert not list((debian / "etc/systemd/system").rglob("meter*"))
        assert (debian / "var/lib/meter/postgresql").exists()
        assert debian.run("getent", "passwd", "meter")
        step("purged: configuration and enabled units are gone; the data are kept, and the output says so")


def main() -> int:
    """Run the campaign; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--lintian", action="store_true", help="also let lintian check the package, which takes minutes"
    )
    parser.add_argument("--package", type=Path, metavar="FILE", help="check one that was built before")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("Run as root: it makes a Debian in a directory, and installs packages there.\n")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is mounted is unmounted
    with tempfile.TemporaryDirectory(prefix="meter-deb-") as directory:
        os.chmod(directory, 0o755)
        campaign = Campaign(Path(directory), options.package, lintian=options.lintian)
        try:
            campaign.run()
        except (AssertionError, Failed) as error:
            sys.stderr.write(f"FAILED: {error or type(error).__name__}\n")
            if isinstance(error, AssertionError):
                raise
            return 1
        finally:
            campaign.debian.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
