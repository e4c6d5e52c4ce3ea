"""Who runs the embedded PostgreSQL: it refuses to be root, so root needs somebody else to be it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

USERS = ("meter", "postgres", "nobody")
"""Who runs the server when the daemon is root: the first that the system knows."""

SEARCH_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


class Unusable(Exception):
    """A directory, or a system, where no PostgreSQL can be run as asked; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who the server runs as; ids of ``None`` mean the daemon's own. ``wrapper`` is put before its command line.

    With ``wrapper_switches`` it is the wrapper that changes to ``uid`` and ``gid``, and the process has to be started as
    the daemon's own user.
    """

    uid: int | None = None
    gid: int | None = None
    wrapper: tuple[str, ...] = ()
    wrapper_switches: bool = False

    @property
    def started_as(self) -> tuple[int | None, int | None]:
        """The user and group ids to start a process with."""
        return (None, None) if self.wrapper_switches else (self.uid, self.gid)

    def own(self, path: Path) -> None:
        """Make ``path`` this account's."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def account(program: Path, data: Path) -> Account:
    """Return who may run ``program`` on ``data``, whether or not that exists yet.

    Root hands over to an unprivileged user if that user can reach both. Where it cannot (a home directory of root's, a
    private checkout), the server stays root's but sees itself, in a user namespace of its own, as that user; where no
    such namespace is permitted (in most containers), it is that user's and keeps the one capability that lets it pass
    closed directories. Data stay whose they are: PostgreSQL refuses any but its own.
    """
    if os.geteuid() != 0:
        return Account()
    for name in USERS:
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            break
    else:
        raise Unusable(
            f"PostgreSQL does not run as root and there is no user {' or '.join(USERS)}: run Meter as a user"
        )
    owner = data.stat().st_uid if data.exists() else None
    if owner != 0 and all(reachable(path, user.pw_uid) for path in (program, data)):
        return Account(user.pw_uid, user.pw_gid)
    namespaced = Account(wrapper=("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}"))
    capable = Account(
        user.pw_uid,
        user.pw_gid,
        wrapper=(
            "setpriv",
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
            "--securebits=+no_setuid_fixup",  # access(2), by which initdb looks for postgres, heeds the capability then
            "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override",
        ),
        wrapper_switches=True,
    )
    candidates = {None: (namespaced, capable), 0: (namespaced,)}.get(owner, (capable,))
    for each in candidates:
        if (wrapper := _permitted(each.wrapper)) is not None:
            return replace(each, wrapper=wrapper)
    raise Unusable(
        f"{user.pw_name}, who would run PostgreSQL for root, cannot reach {program} or {data}, and this system permits"
        f" none of {', '.join(each.wrapper[0] for each in candidates)} (of util-linux) to help:"
        " choose places that are open to others, or run Meter as a user"
    )


def _permitted(wrapper: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return ``wrapper`` with the path of its program if it can run something here."""
    program = shutil.which(wrapper[0], path=SEARCH_PATH)
    if program is None:
        return None
    tried = subprocess.run([program, *wrapper[1:], "true"], capture_output=True, check=False)
    return (program, *wrapper[1:]) if tried.returncode == 0 else None


def reachable(path: Path, uid: int) -> bool:
    """Say whether a user who is in no group of note may pass all directories above ``path``, as far as they exist."""
    for parent in path.absolute().parents:
        with suppress(FileNotFoundError):
            status = parent.stat()
            if not status.st_mode & (0o100 if status.st_uid == uid else 0o001):
                return False
    return True


def setsid_prefix() -> tuple[str, ...]:
    """Return what to put before a command line so that a Ctrl-C at the daemon's terminal does not reach it."""
    setsid = shutil.which("setsid", path=SEARCH_PATH)
    return (setsid,) if setsid else ()
