"""``meter-rate verify``: verifies a statement offline, without a database and without a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.rating.statements.statement_keys import public_directory
from meter.rating.statements.statement_keys import read_public_keys
from meter.rating.statements.strict_json import MAX_BYTES
from meter.rating.statements.verification import verify_document

MAX_LINE_BYTES = 1024 * 1024
"""The longest line of an annex that is read: a resource has at most a quantity for each day of a month."""


class StatementVerifyOptions(RateOptions):
    """The options of ``verify``."""

    synopsis = "FILE [--keys FILE|DIRECTORY] [--annex FILE] [--previous FILE] [--json]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        [
            "keys",
            "k",
            None,
            "Public keys: a PEM file, a directory of them, or the response of GET /v2/statement-keys. [default: those of [rating]]",
        ],
        ["annex", "a", None, "Annex of the statement: its hash and its sums are compared."],
        ["previous", None, None, "The account's statement before this one: its hash is compared."],
    ]

    def parseArgs(self, file: str) -> None:  # type: ignore[override]  # Twisted passes the arguments
        """Take the file of the statement."""
        self["file"] = file


async def work(context: RateContext, options: Any) -> int:
    """Write the outcome of each check; return the exit status: all is well only if the signature was checked, too."""
    try:
        keys = _keys(context, options["keys"])
        body = _read(options["file"])
        annex = None if options["annex"] is None else _lines(options["annex"])
        previous = None if options["previous"] is None else _read(options["previous"])
        checks = verify_document(body, keys, annex, previous)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    verified = all(
        each.outcome == "passed" or (each.outcome == "not checked" and each.name != "signature") for each in checks
    )
    objects: list[dict[str, Any]] = [
        {"check": each.name, "outcome": each.outcome, "text": each.text} for each in checks
    ]
    lines = [f"{each.outcome.upper():<11}  {each.name:<14}  {each.text}" for each in checks]
    Output(bool(options["json"])).write(
        [*objects, {"verified": verified}], [*lines, "verified" if verified else "NOT VERIFIED"]
    )
    return EXIT_OK if verified else EXIT_FOUND_PROBLEMS


def _keys(context: RateContext, given: str | None) -> Mapping[str, Ed25519PublicKey]:
    """Return the public keys at ``given``, or the configured ones; none if there are no such."""
    if given is not None:
        return read_public_keys(Path(given))
    settings = context.config.rating
    if not (settings.signing_key_file or settings.public_keys_directory):
        return {}
    path = public_directory(settings.signing_key_file, settings.public_keys_directory)
    return read_public_keys(path) if path.exists() else {}


def _read(file: str) -> bytes:
    with Path(file).open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _lines(file: str) -> Iterator[bytes]:
    with Path(file).open("rb") as opened:
        while line := opened.readline(MAX_LINE_BYTES):
            yield line
