"""``meter-rate close``: closes a period: its statements become final, are signed, and never change."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.operator import WHO
from meter.commands.operator import act
from meter.commands.rate.statement_services import closing
from meter.commands.rate.statement_services import exclusively
from meter.commands.rate.statement_services import terminal_progress
from meter.commands.rate.statement_text import unpriced_lines
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.interfaces import RequestError
from meter.rating.statements.closing_act import AccountResult
from meter.rating.statements.closing_act import ClosingAct
from meter.rating.statements.closing_problems import ClosingProblem
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement_keys import public_directory
from meter.rating.statements.statement_keys import publish_key
from meter.rating.statements.statement_keys import read_private_key
from meter.rating.statements.statement_keys import read_public_keys


class CloseOptions(RateOptions):
    """The options of ``close``."""

    synopsis = 'YYYY-MM [--account ID]... [--accept-gaps "REASON"] [--each] [--output DIRECTORY] [--json]'
    longdesc = (
        "Refused, with all reasons, while the period or its days of grace are not over, hours are not final, samples or"
        " reports are missing, or another period has to be closed first. If one account is refused, none is closed."
    )
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["accept-gaps", None, None, "Close although something is missing; the reason is kept on the statement."],
        ["output", "o", None, "Directory to which the signed statements are written, one file each."],
        WHO,
    ]
    optFlags = [["each", None, "Close the accounts that can be closed, although others are refused."]]  # noqa: N815, RUF012

    def __init__(self) -> None:
        super().__init__()
        self["accounts"] = []

    def opt_account(self, account: str) -> None:
        """Close the period of this account only; may be given several times."""
        self["accounts"].append(account)

    opt_a = opt_account

    def parseArgs(self, period: str) -> None:  # type: ignore[override]  # Twisted passes the arguments
        """Take the period."""
        self["period"] = period

    def postOptions(self) -> None:
        """Require a reason where gaps are accepted."""
        if self["accept-gaps"] is not None and not self["accept-gaps"].strip():
            raise usage.UsageError(
                'give a reason: --accept-gaps "why the period is closed although samples are missing"'
            )
        # A period is closed only once: look before, not when the statements are to be written.
        if self["output"] is not None and not Path(self["output"]).is_dir():
            raise usage.UsageError(f"--output {self['output']}: there is no such directory")


async def work(context: RateContext, options: Any) -> int:
    """Close; write what became of each account, and return the exit status."""
    settings, directory, output = context.config.rating, context.prices(), Output(bool(options["json"]))
    acting = act(context.config, {"who": options["who"], "reason": options["accept-gaps"]}, needs_reason=False)
    try:
        key = read_private_key(Path(settings.signing_key_file)) if settings.signing_key_file else None
        if key is None:
            raise CommandError(
                "statements cannot be signed: set [rating] signing_key_file, and run meter-rate keys generate"
            )
        public_keys = public_directory(settings.signing_key_file, settings.public_keys_directory)
        publish_key(key.public_key(), public_keys)
        known = read_public_keys(public_keys)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    closes = ClosingAct(
        key=key,
        closed_by=acting.who,
        accept_gaps=acting.reason,
        audit_keys=acting.keys,
        audit_details=acting.details,
        each_for_itself=bool(options["each"]),
        public_keys=known,
    )
    async with context.store() as store:
        progress = terminal_progress()
        service = closing(store, directory, settings.correct_periods, progress)

        async def close_all() -> list[AccountResult]:
            return await service.close(options["period"], options["accounts"] or None, closes, context.now())

        try:
            results = await exclusively(context.reactor, store, close_all, progress)
        except (ValueError, RequestError) as error:
            raise CommandError(str(error)) from error
    if options["output"] is not None:
        _write_files(options["output"], results)
    output.write([result_json(each) for each in results], [line for each in results for line in result_lines(each)])
    good = all(each.result in ("closed", "already closed", "nothing to bill") for each in results)
    return EXIT_OK if good else EXIT_FOUND_PROBLEMS


def _write_files(directory: str, results: list[AccountResult]) -> None:
    """Write the statements, each under a name that is there only when it is complete."""
    try:
        for each in results:
            if each.signed is not None:
                path = Path(directory) / f"{each.signed.statement.statement_id}.json"
                # Only the owner can read it: it has the address of who pays.
                handle, name = mkstemp(prefix=f".{path.name}.", dir=directory)
                try:
                    with os.fdopen(handle, "wb") as file:
                        file.write(signed_document(each.signed))
                    os.replace(name, path)
                except BaseException:
                    os.unlink(name)
                    raise
    except OSError as error:
        raise CommandError(
            f"the statements are closed, but cannot be written to {directory}: {error.strerror or error}; export them with"
            " meter-rate export, or repeat the command"
        ) from error


def result_json(result: AccountResult) -> dict[str, Any]:
    """Return a result for JSON."""
    statement = None if result.signed is None else result.signed.statement
    return {
        "account": result.account_id,
        "period": result.period,
        "result": result.result,
        "statement": None if statement is None else statement.statement_id,
        "total": None if statement is None else f"{statement.total:f}",
        "currency": None if statement is None else statement.currency,
        "unpriced": 0 if statement is None else len(statement.unpriced),
        "problems": [{"code": each.code, "text": each.text, "acceptable": each.acceptable} for each in result.problems],
    }


def result_lines(result: AccountResult) -> list[str]:
    """Return a result as text."""
    line = f"{result.result}  {result.account_id}"
    if result.signed is None:
        hints = [_hint(each) for each in result.problems]
        return [
            line,
            *(
                f"  {each.code}: {each.text}{f' ({hint})' if hint else ''}"
                for each, hint in zip(result.problems, hints, strict=True)
            ),
        ]
    statement = result.signed.statement
    lines = [f"{line}  {statement.statement_id}  {statement.total:f} {statement.currency}"]
    if statement.unpriced:
        count = len(statement.unpriced)
        kinds = "1 kind of usage has" if count == 1 else f"{count} kinds of usage have"
        lines.append(f"  {kinds} no price and {'is' if count == 1 else 'are'} not billed:")
        lines += [f"  {each}" for each in unpriced_lines(statement)]
    return lines


def _hint(problem: ClosingProblem) -> str:
    """Return what can be done about a problem, "" if only waiting helps."""
    if problem.code == "hours not finalized":
        return "wait [store] finalize_after_seconds after the end of the hour, or run meter-db finalize"
    return 'add --accept-gaps "REASON" to accept it' if problem.acceptable else ""
