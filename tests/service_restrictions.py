"""Runs ``ExecStart`` of a systemd unit under the unit's restrictions, where there is no systemd::

    python3 tests/service_restrictions.py UNIT [--without=SETTING,...] [--exec=PROGRAM] [ARGUMENT...]

Applied are: the user and the groups, ``UMask``, ``LimitNOFILE``, the environment, ``StateDirectory``, capabilities,
``NoNewPrivileges``, the file system (``ProtectSystem=strict``, ``ProtectHome``, ``PrivateTmp``, ``PrivateDevices``), and by seccomp
``SystemCallFilter``, ``RestrictAddressFamilies``, ``MemoryDenyWriteExecute`` and ``RestrictNamespaces``, all as systemd 252 does it.
``--exec`` runs another program in place of that of ``ExecStart``. ``ARGUMENT``\\ s are appended. Needs root, and nothing but Python's
standard library and libseccomp.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import resource
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

ALLOW = 0x7FFF0000
REFUSE = 0x00050000
MASKED_EQUAL, NOT_EQUAL = 7, 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
PROT_WRITE, PROT_EXEC, SHM_EXEC = 2, 4, 0o100000
NAMESPACES = 0x7E020080
"""All ``CLONE_NEW…`` flags."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
libc = ctypes.CDLL(None, use_errno=True)


class Unit:
    """The settings of a unit's ``[Service]``, each a list of values."""

    def __init__(self, path: Path, without: Sequence[str] = ()) -> None:
        self._settings: dict[str, list[str]] = {}
        section = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            name, equals, value = line.partition("=")
            if line.startswith("["):
                section = line
            elif section == "[Service]" and equals and not line.startswith("#") and name not in without:
                self._settings.setdefault(name, []).append(value)
        instance = path.name.partition("@")[2].partition(".")[0]
        self.command = [each.replace("%i", instance) for each in shlex.split(self.value("ExecStart"))]

    def value(self, name: str, default: str = "") -> str:
        return self._settings.get(name, [default])[-1]

    def values(self, name: str) -> list[str]:
        return self._settings.get(name, [])

    def on(self, name: str) -> bool:
        return self.value(name) in ("yes", "strict")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def mount_points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


def restrict_files(unit: Unit) -> None:
    """Make the file system what it is for the unit, in a mount namespace of its own."""
    state = [f"/var/lib/{each}" for each in unit.value("StateDirectory").split()]
    for each in state:
        if not os.path.isdir(each):
            os.mkdir(each, 0o700)
            if unit.value("User"):
                shutil.chown(each, unit.value("User"), unit.value("User"))
        run("mount", "--bind", each, each)
    writable = (*state, "/dev", "/proc")
    if unit.on("PrivateTmp"):
        writable = (*writable, "/tmp", "/var/tmp")
        for each in ("/tmp", "/var/tmp"):
            run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", each)
    if unit.on("PrivateDevices"):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
        for each in DEVICES:
            Path("/mnt", each).touch()
            run("mount", "--bind", f"/dev/{each}", f"/mnt/{each}")
        Path("/mnt/shm").mkdir()
        run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/mnt/shm")
        run("mount", "--move", "/mnt", "/dev")
    if unit.on("ProtectHome"):
        for each in ("/home", "/root", "/run/user"):
            if os.path.isdir(each):
                run("mount", "-t", "tmpfs", "-o", "mode=000,ro", "tmpfs", each)
    if unit.value("ProtectSystem") == "strict":
        for each in mount_points():
            if not any(each == other or each.startswith(f"{other}/") for other in writable):
                run("mount", "-o", "remount,bind,ro", each)


def restrict_privileges(unit: Unit) -> None:
    """Drop capabilities, and become the unit's user with its groups."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if unit.values("CapabilityBoundingSet") == [""]:
        for number in range(64):
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    if unit.value("User"):
        user = pwd.getpwnam(unit.value("User"))
        groups = [grp.getgrnam(each).gr_gid for each in unit.value("SupplementaryGroups").split()]
        os.setgroups([user.pw_gid, *groups])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


class Argument(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Filter:
    """A seccomp filter of libseccomp."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._filter = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))
        # Not no_new_privs, which the unit sets, and not for another architecture.

    def rule(self, action: int, call: str, *arguments: Argument) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return  # of another architecture
        array = (Argument * len(arguments))(*arguments)
        error = self._library.seccomp_rule_add_array(
            self._filter, ctypes.c_uint32(action), number, len(arguments), array
        )
        if error:
            raise OSError(-error, f"{call}: {os.strerror(-error)}")

    def load(self) -> None:
        error = self._library.seccomp_load(self._filter)
        if error:
            raise OSError(-error, f"seccomp: {os.strerror(-error)}")


def system_calls(name: str) -> Iterator[str]:
    """The system calls of a set of systemd, and of the sets in it."""
    for line in run("systemd-analyze", "syscall-filter", name).splitlines()[1:]:
        each = line.strip()
        if each.startswith("@"):
            yield from system_calls(each)
        elif each and not each.startswith("#"):
            yield each


def restrict_system_calls(unit: Unit) -> None:
    """Load the filters of the unit."""
    allowed = {each for name in unit.value("SystemCallFilter").split() for each in system_calls(name)}
    filters = []
    if allowed:
        # systemd always permits what it needs to begin the service: @default, and these.
        calls = Filter(REFUSE | errno.EPERM)
        for each in sorted({*allowed, *system_calls("@default"), "execve", "exit", "exit_group"}):
            calls.rule(ALLOW, each)
        filters.append(calls)
    others = Filter(ALLOW)
    if families := unit.value("RestrictAddressFamilies").split():
        known = {int(getattr(socket, each)) for each in families}
        for number in range(64):
            if number not in known:
                others.rule(REFUSE | errno.EAFNOSUPPORT, "socket", Argument(0, 4, number, 0))
    if unit.on("MemoryDenyWriteExecute"):
        both = PROT_WRITE | PROT_EXEC
        others.rule(REFUSE | errno.EPERM, "mmap", Argument(2, MASKED_EQUAL, both, both))
        others.rule(REFUSE | errno.EPERM, "mprotect", Argument(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
        others.rule(REFUSE | errno.EPERM, "pkey_mprotect", Argument(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
        others.rule(REFUSE | errno.EPERM, "shmat", Argument(2, MASKED_EQUAL, SHM_EXEC, SHM_EXEC))
    if unit.on("RestrictNamespaces"):
        others.rule(REFUSE | errno.EPERM, "unshare")
        others.rule(REFUSE | errno.EPERM, "setns")
        for bit in (1 << shift for shift in range(32) if NAMESPACES >> shift & 1):
            others.rule(REFUSE | errno.EPERM, "clone", Argument(0, MASKED_EQUAL, bit, bit))
    for each in (others, *filters):
        each.load()


def environment(unit: Unit, given: dict[str, str]) -> dict[str, str]:
    """What systemd gives to the unit, and what the service manager would."""
    found = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8"}
    if unit.value("User"):
        user = pwd.getpwnam(unit.value("User"))
        found |= {"HOME": user.pw_dir, "LOGNAME": user.pw_name, "USER": user.pw_name, "SHELL": user.pw_shell}
    if unit.value("StateDirectory"):
        found["STATE_DIRECTORY"] = f"/var/lib/{unit.value('StateDirectory')}"
    found |= dict(each.split("=", 1) for each in unit.values("Environment"))
    return found | {name: given[name] for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC") if name in given}


def main(arguments: list[str]) -> None:
    """Become the service."""
    path, *rest = arguments
    without = [name for each in rest if each.startswith("--without=") for name in each[10:].split(",")]
    programs = [each[7:] for each in rest if each.startswith("--exec=")]
    more = [each for each in rest if not each.startswith(("--without=", "--exec="))]
    unit = Unit(Path(path), without)
    command = [*(programs or unit.command[:1]), *unit.command[1:], *more]
    if any(unit.on(each) for each in ("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices")):
        if "METER_IN_NAMESPACE" not in os.environ:
            os.environ["METER_IN_NAMESPACE"] = "1"
            os.execvp("unshare", ["unshare", "--mount", "--propagation=private", sys.executable, __file__, *arguments])
        restrict_files(unit)
    variables = environment(unit, dict(os.environ))
    os.umask(int(unit.value("UMask", "0022"), 8))
    if limit := unit.value("LimitNOFILE"):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # nobody may raise it without CAP_SYS_RESOURCE
        number = int(limit) if most == resource.RLIM_INFINITY else min(int(limit), most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    os.chdir("/")
    restrict_privileges(unit)
    restrict_system_calls(unit)
    os.execve(command[0], command, variables)


if __name__ == "__main__":
    main(sys.argv[1:])
