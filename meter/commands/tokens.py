"""``meter-token``: creates, lists and revokes tokens of the API, for sites without Keystone."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from twisted.python import usage

from meter.api_token import ApiToken
from meter.api_token import digest_of
from meter.api_token import id_of
from meter.api_token import new_token
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.commands.db import JsonOptions
from meter.commands.db import Report
from meter.commands.db import as_text
from meter.commands.operator import REASON
from meter.commands.operator import UNRECORDED
from meter.commands.operator import WHO
from meter.commands.operator import act
from meter.commands.operator import login_name
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.settings import Config
from meter.store import MAX_REASON
from meter.store import MAX_VALID_TOKENS
from meter.store import Act
from meter.store import ApiTokenAdministration
from meter.store import TooManyTokens
from meter.store import UnknownToken

MAX_NAME_CHARACTERS = 255
"""Maximum length of the id of a project and of the name of a user."""

PURGE_DAYS = 90


class CreateTokenOptions(JsonOptions):
    """The options of ``create``."""

    synopsis = "--project PROJECT | --admin"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["project", "p", None, "Id of the project whose samples the token gives access to."],
        ["user", "u", None, "Name of the client, which samples that it posts without a user_id get."],
        ["expires", None, None, "Time of expiry, such as 2027-01-01 or 2027-01-01T12:00:00+01:00. [default: never]"],
        ["days", "d", None, "Days until the token expires, instead of --expires."],
        WHO,
        REASON,
    ]
    optFlags = [  # noqa: N815, RUF012
        ["admin", None, "The token gives access to the samples of all projects."],
        UNRECORDED,
    ]

    def parseArgs(self) -> None:
        """Take no arguments: a user or project without its option is a mistake."""

    def postOptions(self) -> None:
        """Require a project or ``--admin``, and at most one expiry."""
        if bool(self["admin"]) == (self["project"] is not None):
            raise usage.UsageError("create: give either --project PROJECT or --admin")
        if self["expires"] is not None and self["days"] is not None:
            raise usage.UsageError("create: give either --expires or --days")


class RevokeTokenOptions(JsonOptions):
    """The options of ``revoke``."""

    synopsis = "ID …"
    optParameters = [WHO, REASON]  # noqa: N815, RUF012
    optFlags = [UNRECORDED]  # noqa: N815, RUF012

    def parseArgs(self, *ids: str) -> None:
        """Take ids."""
        if not ids:
            raise usage.UsageError("revoke: give at least one id; list prints them")
        if late := [each for each in ids if each.startswith("-")]:
            raise usage.UsageError(f"revoke: give {late[0]} before the ids")
        self["ids"] = ids


class PurgeTokenOptions(JsonOptions):
    """The options of ``purge``."""

    optParameters = [  # noqa: N815, RUF012
        ["days", "d", PURGE_DAYS, "Days after which an expired or revoked token is deleted."],
        WHO,
        REASON,
    ]
    optFlags = [UNRECORDED]  # noqa: N815, RUF012


class Options(CommandOptions):
    """The options and subcommands of ``meter-token``."""

    synopsis = "Usage: meter-token [--config FILE] create | list | revoke | purge [--json]"
    subCommands = [  # noqa: N815, RUF012
        ["create", None, CreateTokenOptions, "Create a token and print it; it cannot be printed again."],
        ["list", None, JsonOptions, "List all tokens, the oldest first, without the tokens themselves."],
        ["revoke", None, RevokeTokenOptions, "Revoke tokens by their ids; no API has to be restarted."],
        ["purge", None, PurgeTokenOptions, "Delete tokens that expired or were revoked long ago from the list."],
    ]

    def postOptions(self) -> None:
        """Require a subcommand."""
        if self.subCommand is None:
            raise usage.UsageError("give a subcommand: create, list, revoke or purge")


def main() -> None:
    """Run ``meter-token``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Run the subcommand on the configured database; return the exit status."""
    config = configuration(options["config"])
    arguments = options.subOptions
    acting = None if options.subCommand == "list" else acting_in(config, arguments)
    prepared = _prepared(options.subCommand, arguments, datetime.now(UTC))
    async with (
        database_server(reactor, config) as (dsn, retry_seconds),
        connected(
            reactor, lambda: ApiTokenAdministration(reactor, dsn, clock=reactor, act=acting), retry_seconds
        ) as tokens,
    ):
        report = await _administer(tokens, options.subCommand, prepared)
    text = f"{json.dumps(report)}\n" if arguments["json"] else as_text(_joined(report))
    sys.stdout.write(escape_terminal(text))
    sys.stdout.flush()
    if config.api.auth.mode != "tokens" and options.subCommand == "create":
        sys.stderr.write('[api.auth] mode of this configuration is not "tokens": no API with it accepts the token.\n')
    return EXIT_OK


def acting_in(config: Config, arguments: Mapping[str, Any]) -> Act:
    """Return who acts and why, with keys for the audit log; without keys if there are none and ``--unrecorded`` is given."""
    name_of("--who", arguments["who"])
    try:
        return act(config, arguments, needs_reason=False)
    except CommandError as error:
        if len(arguments["reason"] or "") > MAX_REASON:
            raise
        if not arguments["unrecorded"]:
            raise CommandError(f"{error}. Add --unrecorded to go on without it") from error
        sys.stderr.write(f"NOT RECORDED in the audit log: {escape_terminal(str(error))}\n")
        return Act(who=arguments["who"] or login_name(), reason=arguments["reason"] or "", keys=())


def _prepared(command: str, arguments: Mapping[str, Any], now: datetime) -> Any:
    """Return what the subcommand needs of the command line; :class:`CommandError` before the database is asked."""
    match command:
        case "create":
            token = new_token()
            admin = bool(arguments["admin"])
            project = None if admin else name_of("--project", arguments["project"])
            if not admin and project is None:
                raise CommandError("--project: must not be empty")
            expires_at = expiry(arguments["expires"], arguments["days"], now)
            user = name_of("--user", arguments["user"])
            return token, ApiToken(str(id_of(token)), digest_of(token), admin, project, user, expires_at)
        case "revoke":
            for each in arguments["ids"]:
                if (id := id_of(each)) is not None:
                    raise CommandError(f"{id}: give this id, not the token: command lines are visible to other users")
            return list(dict.fromkeys(arguments["ids"]))
        case "purge":
            return now - timedelta(days=_days("--days", arguments["days"], allow_zero=True))
    return None


async def _administer(tokens: ApiTokenAdministration, command: str, prepared: Any) -> Report:
    match command:
        case "create":
            text, token = prepared
            try:
                await tokens.create(token)
            except TooManyTokens as error:
                raise CommandError(f"there are {MAX_VALID_TOKENS} valid tokens, the maximum: revoke some") from error
            expires_at = None if token.expires_at is None else token.expires_at.isoformat(timespec="seconds")
            access = {"admin": token.is_admin, "project_id": token.project_id, "user_id": token.user_id}
            return {"token": text, "id": token.id, **access, "expires_at": expires_at}
        case "revoke":
            try:
                revoked = await tokens.revoke(prepared)
            except UnknownToken as error:
                raise CommandError(f"{error}: there is no token with this id; nothing was revoked") from error
            return {"revoked": revoked, "revoked_before": [id for id in prepared if id not in revoked]}
        case "purge":
            return {"purged_tokens": len(await tokens.purge(prepared))}
        case _:
            return {"tokens": await tokens.all()}


def _joined(report: Report) -> Report:
    """Return ``report`` with lists of ids as texts, and tables as they are."""
    return {
        name: ", ".join(value) if isinstance(value, list) and name != "tokens" else value
        for name, value in report.items()
    }


def expiry(time: str | None, days: str | None, now: datetime) -> datetime | None:
    """Return the time of expiry from ``--expires`` or ``--days``; :class:`CommandError` unless it is in the future."""
    try:
        if time is not None:
            expires_at = parse_timestamp(time, "--expires")
        elif days is not None:
            expires_at = now + timedelta(days=_days("--days", days))
        else:
            return None
    except (BadMessage, OverflowError) as error:
        raise CommandError(f"{error}") from error
    if expires_at <= now:
        raise CommandError(f"--expires: {expires_at.isoformat(timespec='seconds')} is in the past")
    return expires_at


def _days(option: str, text: object, *, allow_zero: bool = False) -> float:
    try:
        days = float(str(text))
    except ValueError:
        days = -1.0
    if not (days >= 0 if allow_zero else days > 0) or days > 365_000:
        raise CommandError(f"{option}: should be a number of days, not {text!r}")
    return days


def name_of(option: str, text: str | None) -> str | None:
    """Return ``text``, the value of ``option``; :class:`CommandError` for what cannot be the id of a project or a user."""
    if text is None or text == "":
        return None
    if text != text.strip() or not text.isprintable() or len(text) > MAX_NAME_CHARACTERS:
        raise CommandError(
            f"{option}: should be at most {MAX_NAME_CHARACTERS} printable characters without spaces around them"
        )
    return text
