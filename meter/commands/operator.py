"""Who runs a command, and how it records in the audit log what it does."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AsyncExitStack
from contextlib import asynccontextmanager
from typing import Any

from meter.audit_record import Record
from meter.commands.command import CommandError
from meter.commands.command import escape_terminal
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.interfaces import Unavailable
from meter.settings import Config
from meter.settings.config_file import keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keys_for_audit
from meter.store import MAX_REASON
from meter.store import Act
from meter.store import Administration

WHO = ["who", None, None, "Who does this, for the audit log. [default: USER@HOST; with sudo, the user who called it]"]
"""The option of commands that are recorded in the audit log."""

REASON = ["reason", None, None, "Why, for the audit log."]
"""The option with the reason, of the same commands."""

UNRECORDED = [
    "unrecorded",
    None,
    "Go on even if the audit log cannot be written; note the act later with meter-audit note.",
]
"""The flag of commands that work while the database is unavailable."""


def audit_keys(config: Config) -> Sequence[SigningKey]:
    """Return the signing keys from which those of the audit log are derived; :class:`CommandError` if there is none.

    Keys of Ceilometer's agents, and keys for the meters or sources of some hosts only, are not among them: whoever has one of
    these must not be able to write the log.
    """
    exists = config.signing_key_file.exists()
    if config.signing.key is None and not config.signing.keys and not exists:
        raise CommandError(
            "the audit log needs a signing key:"
            f" [signing] has none, and {config.signing_key_file}, which daemons generate, does not exist"
        )
    keys = keys_for_audit(keyring(config))
    if not keys:
        raise CommandError(
            "the audit log needs a signing key for all meters and sources: each in [signing] is restricted to some of them"
        )
    return keys


def act(config: Config, options: Mapping[str, Any], *, needs_reason: bool = True, **members: Any) -> Act:
    """Return who acts and why, from the options ``--who`` and ``--reason``; :class:`CommandError` without a needed reason."""
    reason = (options["reason"] or "").strip()
    if needs_reason and not reason:
        raise CommandError("give a --reason: the audit log keeps it")
    if len(reason) > MAX_REASON:
        raise CommandError(f"--reason: at most {MAX_REASON} characters, not {len(reason)}")
    login = login_name()
    who = (options["who"] or "").strip() or login
    # --who is a claim; the login is recorded beside it.
    details = {} if who == login else {"login": login}
    return Act(who=who, reason=reason, keys=audit_keys(config), details=details, **members)


def login_name() -> str:
    """Return user and host of this process; for root under sudo, the user who called it."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, a number without a name
        user = f"uid {os.getuid()}"
    if os.getuid() == 0:
        user = os.environ.get("SUDO_USER") or user
    return f"{user}@{socket.gethostname()}"


@asynccontextmanager
async def audit_recorder(reactor: Any, config: Config, options: Mapping[str, Any]) -> AsyncIterator[Record]:
    """Provide the function that records acts in the audit log of the configured database.

    If the log cannot be written, it raises :class:`Unavailable`. With the flag ``unrecorded`` it says so on standard error
    instead, once.
    """
    async with AsyncExitStack() as stack:
        try:
            acting = act(config, options, needs_reason=False)
            dsn, retry_seconds = await stack.enter_async_context(database_server(reactor, config))
            administration = await stack.enter_async_context(
                connected(reactor, lambda: Administration(reactor, dsn, clock=reactor), retry_seconds)
            )
            failure = ""
        except (Unavailable, CommandError) as error:
            if isinstance(error, CommandError) and len(options["reason"] or "") > MAX_REASON:
                raise
            failure = str(error)

        async def record(action: str, details: Mapping[str, Any]) -> None:
            nonlocal failure
            if not failure:
                try:
                    await administration.record(acting, action, details)
                except Unavailable as error:
                    failure = str(error)
                else:
                    return
            if not options["unrecorded"]:
                raise Unavailable(
                    f"the audit log cannot be written, so nothing was done: {failure}. Add --unrecorded to go on without it"
                )
            if not warned:
                warned.append(failure)
                sys.stderr.write(f"NOT RECORDED in the audit log: {escape_terminal(failure)}\n")

        warned: list[str] = []
        yield record
