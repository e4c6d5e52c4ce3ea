"""The subcommand of ``meter-db`` that spreads a store over the servers of a Citus cluster, with progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import SubcommandOptions
from meter.commands.operator import REASON
from meter.commands.operator import WHO
from meter.commands.operator import act
from meter.commands.pack import SampleProgress
from meter.settings import Config
from meter.store import NotSpreadable
from meter.store import SpreadingAdministration

MAX_SHARDS_PER_WORKER = 64

REST = "nothing is lost: the same command goes on, and copies the samples anew unless all were divided"


class SpreadOptions(SubcommandOptions):
    """The options of ``spread``."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        [
            "shards-per-worker",
            None,
            4,
            "Into how many tables on each worker the samples of a week are divided: workers that are added later take some of them.",
            int,
        ],
        REASON,
        WHO,
    ]
    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012


async def spread(
    reactor: Any, administration: SpreadingAdministration, config: Config, options: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """Spread the store, or do what is left of that; return the report and the exit status."""
    shards = options["shards-per-worker"]
    if not 1 <= shards <= MAX_SHARDS_PER_WORKER:
        raise CommandError(f"--shards-per-worker must be from 1 to {MAX_SHARDS_PER_WORKER}")
    try:
        spreading = await administration.spreading(shards)
    except NotSpreadable as error:
        raise CommandError(f"the store was not changed: {error}") from error
    if await spreading.is_done():
        return {"spread": "already", "steps": []}, EXIT_OK
    acting = act(config, options, needs_reason=False)
    await administration.record(acting, "spread", {"shards_per_worker": shards})
    samples = await spreading.samples()
    progress = SampleProgress(reactor, "copied", samples, rest=REST)
    steps: list[dict[str, Any]] = []
    with progress.shown():
        async for step in administration.steps(spreading, lambda copied: progress.add(copied - progress.done)):
            steps.append({"step": step.text, "samples": step.samples})
            progress.end()
            if sys.stderr.isatty():
                sys.stderr.write(f"{step.text}\n")
        progress.done = samples
    # Where dividing was stopped before, nobody knows how many there are.
    known = {"samples": samples} if samples else {}
    return {"spread": "done", **known, "steps": steps}, EXIT_OK
