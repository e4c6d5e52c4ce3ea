"""The services of a machine, started as systemd would from their unit files, and the requests that its commands make."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path

from tests.install.unit_file import Unit
from tests.install.unit_file import read_unit

BUS = "dbus.service"
"""What runs on every host with systemd. Its unit needs systemd itself; its init script does not."""

STARTED_SECONDS = 0.5
READY_SECONDS = 300.0
STOP_SECONDS = 90.0

CHANGES = {"start": (False, True), "stop": (True, False), "restart": (True, True)}
"""What of a service these commands do: stop it, start it."""

Entering = Callable[[], Sequence[str]]


class ServiceFailed(Exception):
    """What was asked cannot be done; the text is what ``systemctl`` prints."""


class Services:
    """Starts and stops units of the machine at ``root``; ``entering()`` are the words before a command that runs there."""

    def __init__(self, root: Path, logs: Path, entering: Entering) -> None:
        self._root = root
        self._logs = logs
        self._entering = entering
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def control(self, arguments: Sequence[str]) -> None:
        """Do what ``systemctl`` would with these arguments."""
        if list(arguments) == ["daemon-reload"]:
            return
        verb, *names = [each for each in arguments if each != "--now"]
        units = [read_unit(self._root, name) for name in names]
        if verb == "enable":
            stops, starts = False, "--now" in arguments
        elif verb in CHANGES:
            stops, starts = CHANGES[verb]
        else:
            raise ServiceFailed(f"systemctl {' '.join(arguments)}: the check cannot do that")
        for unit in units:
            if unit.starts_others:
                self._init_script(unit.name, "restart" if stops and starts else "stop" if stops else "start", starts)
                continue
            if stops:
                self._stop(unit.name)
            if starts:
                self._start(unit)

    def log(self, name: str) -> str:
        """Return what a service has printed."""
        file = self._logs / name
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def names(self) -> Sequence[str]:
        """The services that were started."""
        return tuple(self._running)

    def ended(self) -> Sequence[str]:
        """Return the services that have ended by themselves."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def stop_all(self) -> None:
        """Stop all services, the last one first."""
        for name in reversed(list(self._running)):
            self._stop(name)

    def _init_script(self, name: str, verb: str, wanted: bool) -> None:
        if not wanted and verb == "start":
            return
        command = [*self._entering(), "service", name, verb]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServiceFailed(f"service {name} {verb}: {done.stdout}{done.stderr}")

    def _start(self, unit: Unit) -> None:
        running = self._running.get(unit.name)
        if running is not None and running.poll() is None:
            return
        if BUS in unit.after and (self._root / "etc/init.d/dbus").exists():
            self._init_script("dbus", "start", True)
        for group in unit.groups:
            if not self._known("group", group):
                raise ServiceFailed(f"{unit.name}: Failed to determine group credentials: {group}")
        if not self._known("passwd", unit.user):
            raise ServiceFailed(f"{unit.name}: Failed to determine user credentials: {unit.user}")
        prepare = ["umask 022"]
        for parent, names, mode in (
            ("/var/lib", unit.state_directories, unit.state_mode),
            ("/run", unit.runtime_directories, 0o755),
        ):
            for each in names:
                prepare.append(
                    f"mkdir -p {parent}/{each}; chmod {mode:o} {parent}/{each}; chown {unit.user}: {parent}/{each}"
                )
        groups = f"$(id -G {unit.user} | tr ' ' ','){''.join(f',{each}' for each in unit.supplementary_groups)}"
        group = unit.group or f"$(id -g {unit.user})"
        identity = f"setpriv --reuid {unit.user} --regid {group} --groups {groups} --inh-caps -all"
        script = f'{"; ".join(prepare)}; umask {unit.umask:o}; cd /; exec {identity} "$@"'
        variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8", **unit.environment}
        variables |= {"USER": unit.user, "HOME": self._known("passwd", unit.user)[5]}
        notified = None
        if unit.notifies:
            notified, variables["NOTIFY_SOCKET"] = self._notify_socket(unit.name)
        with (self._logs / unit.name).open("ab") as log:
            process = subprocess.Popen(
                [*self._entering(), "sh", "-e", "-c", script, "unit", *unit.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
        self._running[unit.name] = process
        if notified is not None:
            with notified:
                _until_ready(unit.name, process, notified)
        else:
            time.sleep(STARTED_SECONDS)
        if process.poll() is not None:
            raise ServiceFailed(f"{unit.name} ended with {process.returncode}:\n{self.log(unit.name)[-3000:]}")

    def _known(self, database: str, name: str) -> Sequence[str]:
        """Return the fields of a user or a group, none if there is no such one."""
        lines = (self._root / "etc" / database).read_text(encoding="utf-8").splitlines()
        return next((fields for fields in (line.split(":") for line in lines) if fields[0] == name), ())

    def _notify_socket(self, name: str) -> tuple[socket.socket, str]:
        """Return the socket at which a service says that it is ready, and its address for the service."""
        address = f"/run/{name}.notify"
        path = self._root / address.lstrip("/")
        path.unlink(missing_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind(str(path))
        path.chmod(0o666)
        return made, address

    def _stop(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_ready(name: str, process: subprocess.Popen[bytes], notified: socket.socket) -> None:
    """Wait until the service says that it is ready, or has ended; :class:`ServiceFailed` if it does neither."""
    notified.settimeout(0.5)
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None:
        try:
            if b"READY=1" in notified.recv(4096).split(b"\n"):
                return
        except TimeoutError:
            if time.monotonic() > deadline:
                raise ServiceFailed(f"{name} did not say that it is ready") from None


def answer(requests: Path, services: Services, copy: Callable[[Sequence[str], str], None] | None) -> None:
    """Answer the requests that wait in the directory ``requests``."""
    for file in sorted(requests.glob("*.request")):
        program, directory, *arguments = file.read_text(encoding="utf-8").splitlines()
        file.unlink()
        text, status = "", 0
        try:
            if program == "systemctl":
                services.control(arguments)
            elif program == "scp" and copy is not None:
                copy(arguments, directory)
            else:
                raise ServiceFailed(f"{program}: the check cannot do that here")
        except (ServiceFailed, OSError) as error:
            text, status = f"{error}\n", 1
        file.with_suffix(".answer").write_text(text, encoding="utf-8")
        file.with_suffix(".status").write_text(str(status), encoding="utf-8")
