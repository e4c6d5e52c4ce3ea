"""The operating system account of the embedded PostgreSQL, which refuses to run as root."""

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
"""Users who may run the server if the daemon runs as root: the first that exists."""

SEARCH_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


class Unusable(Exception):
    """PostgreSQL cannot run in this directory or on this system; the text says what to change."""


@dataclass(frozen=True, slots=True)
class RunAs:
    """The account that the server runs as: ``uid`` and ``gid``, or ``None`` for the daemon's own.

    ``wrapper`` is put before the server's command line. With ``wrapper_switches`` the wrapper changes to ``uid`` and ``gid``
    itself, and the process must be started as the daemon's own user.
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
        """Change the owner of ``path`` to this account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def find_run_as(program: Path, data: Path) -> RunAs:
    """Return the account that can run ``program`` with the data directory ``data``, which need not exist yet.

    If the daemon runs as root, this is the first of :data:`USERS`, if that user can reach both paths. If not (a home directory of
    root, a private checkout), the server runs as root in a user namespace, where root has the id of that user. If user
    namespaces are not permitted (as in most containers), the server runs as that user with the capability
    ``CAP_DAC_OVERRIDE``, which lets it traverse closed directories. The owner of existing data does not change: PostgreSQL
    refuses data of another owner.
    """
    if os.geteuid() != 0:
        return RunAs()
    for name in USERS:
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            break
    else:
        raise Unusable(
            f"PostgreSQL does not run as root, and no user {' or '.join(USERS)} exists: run Meter as another user than root"
        )
    owner = data.stat().st_uid if data.exists() else None
    if owner != 0 and all(reachable(path, user.pw_uid) for path in (program, data)):
        return RunAs(user.pw_uid, user.pw_gid)
    namespaced = RunAs(wrapper=("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}"))
    capable = RunAs(
        user.pw_uid,
        user.pw_gid,
        wrapper=(
            "setpriv",
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
            "--securebits=+no_setuid_fixup",  # so that access(2), with which initdb looks for postgres, honours the capability
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
        f"the user {user.pw_name}, who runs PostgreSQL for root, cannot reach {program} or {data}, and this system does not"
        f" permit {' or '.join(each.wrapper[0] for each in candidates)} (of util-linux), which would give access:"
        " choose directories that this user can reach, or run Meter as another user than root"
    )


def _permitted(wrapper: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return ``wrapper`` with the path of its program, or ``None`` if the system does not permit it."""
    program = shutil.which(wrapper[0], path=SEARCH_PATH)
    if program is None:
        return None
    tried = subprocess.run([program, *wrapper[1:], "true"], capture_output=True, check=False)
    return (program, *wrapper[1:]) if tried.returncode == 0 else None


def reachable(path: Path, uid: int) -> bool:
    """Return whether the user ``uid``, without help of its groups, may traverse all existing directories above ``path``."""
    for parent in path.absolute().parents:
        with suppress(FileNotFoundError):
            status = parent.stat()
            if not status.st_mode & (0o100 if status.st_uid == uid else 0o001):
                return False
    return True


def setsid_prefix() -> tuple[str, ...]:
    """Return the start of a command line whose process does not receive Ctrl-C from the daemon's terminal."""
    setsid = shutil.which("setsid", path=SEARCH_PATH)
    return (setsid,) if setsid else ()
