"""``meter-rate keys``: makes, lists and rotates the Ed25519 keys that sign statements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.python import usage

from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.operator import REASON
from meter.commands.operator import UNRECORDED
from meter.commands.operator import WHO
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.rating.statements.statement import builtins
from meter.rating.statements.statement_keys import generate_key
from meter.rating.statements.statement_keys import key_id_of
from meter.rating.statements.statement_keys import listed
from meter.rating.statements.statement_keys import public_directory
from meter.rating.statements.statement_keys import read_private_key
from meter.rating.statements.statement_keys import read_public_keys
from meter.rating.statements.statement_keys import refuse_existing
from meter.rating.statements.statement_keys import rotate_key

ACTIONS = ("generate", "list", "rotate")


class KeysOptions(RateOptions):
    """The options of ``keys``."""

    synopsis = "generate|list|rotate [--reason TEXT] [--json]"
    optParameters = [REASON, WHO]  # noqa: N815, RUF012  # Twisted reads it so
    optFlags = [UNRECORDED]  # noqa: N815, RUF012

    def parseArgs(self, action: str) -> None:  # type: ignore[override]  # Twisted passes the arguments
        """Take the action."""
        if action not in ACTIONS:
            raise usage.UsageError(f"keys: {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}, not {action}")
        self["action"] = action


async def work(context: RateContext, options: Any) -> int:
    """Do it, after the audit log has it, and write the keys; return the exit status."""
    settings, output = context.config.rating, Output(bool(options["json"]))
    private = Path(settings.signing_key_file)
    try:
        public = public_directory(settings.signing_key_file, settings.public_keys_directory)
        if options["action"] == "list":
            return _list(settings.signing_key_file, public, output)
        if not settings.signing_key_file:
            raise CommandError("there is no file for the private key: set [rating] signing_key_file")
        key = Ed25519PrivateKey.generate()
        details = {"key_id": key_id_of(key.public_key()), "private": str(private), "public_directory": str(public)}
        if options["action"] == "generate":
            refuse_existing(private)
        else:
            details["replaces"] = key_id_of(read_private_key(private).public_key())
        async with context.recorder(options) as record:
            await record(f"statement-key.{options['action']}", details)
        if options["action"] == "generate":
            id = generate_key(private, public, key)
            text = f"key {id}: private in {private}, public in {public / f'{id}.pem'}"
            output.write([{"key_id": id, "private": str(private), "public": str(public / f"{id}.pem")}], [text])
            return EXIT_OK
        id, old = rotate_key(private, public, key)
    except ValueError as error:
        raise CommandError(str(error)) from error
    lines = [
        f"key {id}: private in {private}, public in {public / f'{id}.pem'}",
        f"The old private key is in {old}. It is not needed any more: what it signed is verified with its public key.",
    ]
    output.write([{"key_id": id, "private": str(private), "public": str(public / f"{id}.pem"), "old": str(old)}], lines)
    return EXIT_OK


def _list(signing_key_file: str, public: Path, output: Output) -> int:
    keys = listed(read_public_keys(public)) if public.is_dir() else []
    signs = None
    if signing_key_file and Path(signing_key_file).exists():
        signs = key_id_of(read_private_key(Path(signing_key_file)).public_key())
    objects = [{**builtins(key), "signs": key.key_id == signs} for key in keys]
    lines = [f"{key.key_id}  {key.algorithm}{'  signs statements' if key.key_id == signs else ''}" for key in keys]
    output.write(objects, lines or [f"there are no keys in {public}: meter-rate keys generate makes one"])
    return EXIT_OK
