"""Who runs a command, and the keys with which the audit log is written and verified."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from meter.commands.command import CommandError
from meter.settings import Config
from meter.settings.config_file import keyring
from meter.signature import SigningKey
from meter.store import MAX_REASON
from meter.store import Act

WHO = ["who", None, None, "Who does this, for the audit log. [default: USER@HOST; with sudo, the user who called it]"]
"""The option of commands that are recorded in the audit log."""

REASON = ["reason", None, None, "Why, for the audit log."]
"""The other one."""


def audit_keys(config: Config) -> Sequence[SigningKey]:
    """Return the signing keys, which also key the audit log; :class:`CommandError` if there is none yet."""
    exists = config.signing_key_file.exists()
    if config.signing.key is None and not config.signing.keys and not exists:
        raise CommandError(
            "the audit log needs a signing key:"
            f" [signing] has none, and {config.signing_key_file}, which daemons generate, does not exist"
        )
    return keyring(config).keys


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
