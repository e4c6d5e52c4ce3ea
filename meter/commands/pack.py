"""The subcommands of ``meter-db`` that pack old weeks, and unpack one: with progress on a terminal, and what was done in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import SubcommandOptions
from meter.commands.operator import REASON
from meter.commands.operator import WHO
from meter.commands.operator import act
from meter.settings import Config
from meter.store import PackingAdministration
from meter.store import WeekIsArchived
from meter.store.packing.packer import NotVerified
from meter.store.packing.unpacking import NotUnpacked
from meter.store.postgres.connection import Rejected

PACK_AFTER_DAYS = 14.0
"""After how many days ``meter-db pack`` packs a week if the daemons never do."""

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class PackOptions(SubcommandOptions):
    """The options of ``pack``."""

    synopsis = "[options] [MONDAY …]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        [
            "after-days",
            None,
            None,
            "Pack the weeks that ended more than this number of days ago. [default: [store] pack_after_days]",
            float,
        ],
        REASON,
        WHO,
    ]
    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012

    def parseArgs(self, *weeks: str) -> None:
        """Take the days on which weeks begin."""
        self["weeks"] = [named_week(text) for text in weeks]


class UnpackOptions(SubcommandOptions):
    """The options of ``unpack``."""

    synopsis = "[options] MONDAY"
    optParameters = [REASON, WHO]  # noqa: N815, RUF012
    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012

    def parseArgs(self, *weeks: str) -> None:
        """Take the day on which the week begins."""
        self["week"] = one_week("unpack", weeks)


def named_week(text: str) -> date:
    """Return the Monday that ``text`` states; a usage error if it is none."""
    try:
        week = date.fromisoformat(text)
    except ValueError as error:
        raise usage.UsageError(f"{text!r} is not a date such as 2026-11-02") from error
    if week.weekday():
        raise usage.UsageError(f"{text} is not a Monday: a week is named by the day on which it begins (UTC)")
    return week


def one_week(command: str, weeks: tuple[str, ...]) -> date:
    """Return the one week that the arguments of ``command`` name."""
    if len(weeks) != 1:
        raise usage.UsageError(f"{command}: give the Monday of one week, after all options")
    return named_week(weeks[0])


class SampleProgress:
    """Shows on standard error, if that is a terminal, how many of ``total`` samples are done, the rate, and the time left.

    ``total`` is 0 if nobody knows it. ``unit`` is what is counted in place of samples, ``rest`` what is said of the rest where the work ends
    before.
    """

    def __init__(
        self,
        clock: IReactorTime,
        verb: str,
        total: int,
        unit: str = "samples",
        rest: str = "the same command does the rest",
    ) -> None:
        self._clock = clock
        self._verb = verb
        self._total = total
        self._unit = unit
        self._rest = rest
        self._since = clock.seconds()
        self.done = 0

    @property
    def rate(self) -> float:
        """Samples per second since the beginning."""
        return self.done / max(self._clock.seconds() - self._since, 0.001)

    def add(self, samples: int) -> None:
        """Count ``samples`` as done."""
        self.done += samples
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{self.text()}")
            sys.stderr.flush()

    def text(self) -> str:
        """Return the line that is shown."""
        if not self.done:
            return self._done
        left = f", {_duration(max(self._total - self.done, 0) / self.rate)} left" if self._total else ""
        return f"{self._done}, {self.rate:,.0f}/s{left}"

    @property
    def _done(self) -> str:
        of_total = f" of {self._total:,}" if self._total else ""
        return f"{self._verb} {self.done:,}{of_total} {self._unit}"

    def end(self) -> None:
        """Erase the line."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Erase the line in the end; where the work fails or is interrupted, say instead how far it was, and what becomes of the rest."""
        try:
            yield
        except BaseException:
            self.end()
            sys.stderr.write(f"{self._done}; {self._rest}\n")
            raise
        self.end()


async def pack(
    reactor: Any, administration: PackingAdministration, config: Config, options: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """Pack the weeks that are named, or due; return the report and the exit status, 1 if a week cannot be packed now."""
    settings, named = config.store, options["weeks"]
    after = options["after-days"]
    if after is None:
        after = settings.pack_after_days or PACK_AFTER_DAYS
    if after < 0:
        raise CommandError("--after-days must not be negative")
    states = await administration.weeks(named, after_days=after, retention_days=settings.retention_days)
    missing = sorted(set(named) - {state.week for state in states})
    todo = [state for state in states if state.plain]
    rows: list[dict[str, Any]] = [_row(week, None, "has no partition, or is not over") for week in missing]
    weeks = [state.week for state in todo]
    if todo:
        await administration.record(act(config, options, needs_reason=False), "pack", {"weeks": [*map(str, weeks)]})
    before = await administration.bytes_of(weeks)
    progress = SampleProgress(reactor, "packed", sum(state.plain for state in todo))
    with progress.shown():
        for state in todo:
            try:
                samples = await administration.pack(state.week, progress.add)
            except (NotVerified, Rejected, WeekIsArchived) as error:
                rows.append(_row(state.week, None, f"not packed: {error}"))
                continue
            outcome = "packed" if samples is not None else "not packed: an hour of it is not final; meter-db finalize"
            rows.append(_row(state.week, samples, outcome))
    report = {
        "packed_samples": progress.done,
        "samples_per_second": round(progress.rate) if progress.done else None,
        "bytes_before": before,
        "bytes_after": await administration.bytes_of(weeks),
        "weeks": rows,
    }
    failed = missing or any(row["samples"] is None for row in rows)
    return report, EXIT_FOUND_PROBLEMS if failed else EXIT_OK


async def unpack(
    reactor: Any, administration: PackingAdministration, config: Config, options: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """Put the samples of a packed week back as rows; return the report and the exit status."""
    week = options["week"]
    states = await administration.weeks([week], after_days=0, retention_days=0)
    if not states or not states[0].packed:
        raise CommandError(f"nothing of the week of {week} is packed")
    await administration.record(act(config, options, needs_reason=False), "unpack", {"week": str(week)})
    progress = SampleProgress(reactor, "unpacked", states[0].packed)
    with progress.shown():
        try:
            samples = await administration.unpack(week, progress.add)
        except (NotUnpacked, WeekIsArchived) as error:
            raise CommandError(str(error)) from error
    again = config.store.pack_after_days
    return {
        "week": str(week),
        "unpacked_samples": samples,
        "packed_again": f"when it ended more than {again:g} days ago, by a collector" if again else "never",
    }, EXIT_OK


def _row(week: date, samples: int | None, outcome: str) -> dict[str, Any]:
    return {"week": str(week), "samples": samples, "outcome": outcome}


def _duration(seconds: float) -> str:
    """Return a duration in the largest whole unit that it fills, and the next one."""
    for n, (unit, name) in enumerate(UNITS):
        if seconds >= unit:
            whole, rest = divmod(round(seconds), unit)
            following = UNITS[n + 1 : n + 2]
            return f"{whole} {name}" + "".join(f" {rest // smaller} {short}" for smaller, short in following)
    return "0 s"
