"""``meter-rate reproduce``: computes a closed statement again from its samples and its price book, and compares."""

from __future__ import annotations

from typing import Any

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate.statement_services import reproduction
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.interfaces import RequestError


class ReproduceOptions(RateOptions):
    """The options of ``reproduce``."""

    synopsis = "STATEMENT_ID [--json]"

    def parseArgs(self, statement_id: str) -> None:  # type: ignore[override]  # Twisted passes the arguments
        """Take the id of the statement."""
        self["statement"] = statement_id


async def work(context: RateContext, options: Any) -> int:
    """Write the differences, or that there are none; return the exit status."""
    id = options["statement"]
    async with context.store() as store:
        signed = await store.rating.statements.statement(id)
        if signed is None:
            raise CommandError(f"there is no closed statement {id}: meter-rate list shows them")
        try:
            differences = await reproduction(store).differences(signed.statement)
        except (ValueError, RequestError) as error:
            raise CommandError(str(error)) from error
    equal = f"{id} is equal to what its samples and its price book give"
    Output(bool(options["json"])).write(
        [{"statement": id, "equal": not differences, "differences": differences}], differences or [equal]
    )
    return EXIT_FOUND_PROBLEMS if differences else EXIT_OK
