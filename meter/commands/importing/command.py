"""``meter-import``: imports what Ceilometer and Gnocchi have stored, each sample once, however often it is called."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from typing import TextIO

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.importing.import_destination import destination
from meter.commands.importing.import_options import Options
from meter.commands.importing.import_rules import ImportRules
from meter.commands.importing.import_source import ImportSelection
from meter.commands.importing.import_source import ImportSource
from meter.commands.importing.import_source import ImportSourceError
from meter.commands.importing.import_state import BadImportState
from meter.commands.importing.import_state import ImportState
from meter.commands.importing.import_state import ImportTotals
from meter.commands.importing.importer import MAX_REASONS
from meter.commands.importing.importer import ImportCounts
from meter.commands.importing.importer import Importer
from meter.commands.importing.source_factories import SOURCE_FACTORIES
from meter.commands.operator import audit_recorder
from meter.commands.pack import SampleProgress
from meter.counts import counted
from meter.daemon.private_files import make_private_file
from meter.daemon.services import wall_seconds
from meter.outgoing import Signer
from meter.sample import utc_text
from meter.settings import Config
from meter.settings.config_file import keyring
from meter.store.maintenance.partitions import MAX_AGE


def main() -> None:
    """Run ``meter-import``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Import from the source that the subcommand names; return the exit status, 1 if some records were not imported."""
    config, arguments = configuration(options["config"]), options.subOptions
    try:
        source = SOURCE_FACTORIES[options.subCommand](reactor, config, arguments)
        try:
            await source.open()
            return await import_from(source, reactor, config, arguments)
        finally:
            await source.close()
    except (ImportSourceError, BadImportState) as error:
        raise CommandError(str(error)) from error


async def import_from(source: ImportSource, reactor: Any, config: Config, options: Any) -> int:
    """Import from the open ``source``, or say what would be imported; return the exit status."""
    dry_run = bool(options["dry-run"])
    now = wall_seconds(reactor)
    if options["selection"].until.timestamp() > now:
        # Later samples would follow, which a finished import does not look for.
        raise CommandError("--until must not be in the future")
    keys = keyring(config, make=not dry_run)
    state = ImportState(Path(options["state"]), _identity(source, options["selection"]))
    if not options["restart"]:
        state.read()
    before, was_finished = state.totals, state.finished
    async with AsyncExitStack() as stack:
        to, rejected = None, None
        if not dry_run:
            state.check_writable()
            rejected = stack.enter_context(_opened(options["rejected"]))
            record = await stack.enter_async_context(audit_recorder(reactor, config, options))
            to = await stack.enter_async_context(destination(reactor, config, keys))
            await record("import", {**state.identity, "mark": state.mark})
        verb = "looked at" if to is None else to.verb
        progress = SampleProgress(reactor, verb, await source.total(state.mark), source.unit)
        importer = Importer(
            source,
            ImportRules(config, now),
            reactor,
            # What somebody once submitted to Ceilometer can have any form.
            lambda: Signer(keys, config.meter.source, untrusted=True),
            destination=to,
            state=None if dry_run else state,
            rejected=rejected,
            rate=options["rate"],
            advance=progress.add,
        )
        reactor.addSystemEventTrigger("before", "shutdown", importer.stop)
        nothing_new = False
        try:
            with progress.shown():
                await importer.run(state.mark)
            nothing_new = was_finished and not (importer.counts.samples or importer.counts.not_imported)
        finally:
            if nothing_new:
                report_finished(before, options)
            else:
                report(importer.counts, "would be imported" if dry_run else verb, options)
    return EXIT_FOUND_PROBLEMS if importer.counts.not_imported else EXIT_OK


def report(counts: ImportCounts, verb: str, options: Any) -> None:
    """Write what was done, or would be."""
    if options["json"]:
        content = {"outcome": verb, **counts.to_json()}
        sys.stdout.write(json.dumps(content) + "\n")
        return
    lines = [f"{counted(counts.samples, 'sample', ',')} of {counted(len(counts.meters), 'meter')} {verb}"]
    for each in counts.to_json()["meters"]:
        lines.append(
            f"  {each['meter']} ({each['type']}, {each['unit']}): {each['samples']:,}, from {each['first']} to {each['last']}"
        )
    if counts.without_partition:
        lines.append(
            f"{counts.without_partition:,} of them {'is' if counts.without_partition == 1 else 'are'} older than {MAX_AGE.days} days: the store keeps these in one table, which is"
            " neither packed nor archived"
        )
    if counts.not_imported:
        where = "" if options["dry-run"] else f"; see {options['rejected']}"
        lines.append(f"{counted(counts.not_imported, 'record', ',')} not imported{where}:")
        found = counts.reasons.most_common(MAX_REASONS)
        for (meter, reason), records in found:
            record = ("the first is " if records > 1 else "") + counts.first_records[meter, reason]
            lines.append(f"  {records:,} of {meter or 'no meter'}: {reason} ({record})")
        if more := len(counts.reasons) - len(found):
            lines.append(f"  and {counted(more, 'other reason', ',')}")
    sys.stdout.write("".join(escape_terminal(line) + "\n" for line in lines))
    sys.stdout.flush()


def report_finished(totals: ImportTotals | None, options: Any) -> None:
    """Write that an import had finished before, and what it had imported; ``None`` if that is not known."""
    if options["json"]:
        known = None if totals is None else {"samples": totals.samples, **asdict(totals)}
        sys.stdout.write(
            json.dumps({"outcome": "finished before", **ImportCounts().to_json(), "imported": known}) + "\n"
        )
        return
    did = "what it had imported is not in its state"
    if totals is not None:
        did = f"it had imported {counted(totals.samples, 'sample', ',')} of {counted(len(totals.meters), 'meter')}"
        if totals.not_imported:
            did += f", and not {counted(totals.not_imported, 'record', ',')}"
    line = f"the import had finished before, and its source has nothing new: {did}; --restart begins again ({options['state']})"
    sys.stdout.write(escape_terminal(line) + "\n")
    sys.stdout.flush()


def _identity(source: ImportSource, selection: ImportSelection) -> dict[str, Any]:
    """Return what distinguishes this import from others, for its state and for the audit log."""
    return {
        **source.identity,
        "since": utc_text(selection.since) if selection.since else None,
        "until": utc_text(selection.until),
        "meters": list(selection.meters),
    }


def _opened(path: str) -> TextIO:
    """Return the file ``path``, to which lines are added; it has ids and metadata, so that only its owner may read it."""
    try:
        make_private_file(Path(path))
        return open(path, "a", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--rejected {path} cannot be written: {error}") from error


if __name__ == "__main__":
    main()
