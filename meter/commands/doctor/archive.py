"""The check *archive*: the servers to which old weeks were moved."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator

from meter.commands.doctor.finding import Finding
from meter.counts import counted
from meter.store import ArchiveHealth
from meter.store import LostWeek
from meter.store import listed

_START = "start it, correct its address with meter-db archive-server add"
_RESTORE = ", or restore its backup; without one, meter-db archive-server lost"


def archive_findings(servers: Collection[ArchiveHealth], lost: Collection[LostWeek] = ()) -> Iterator[Finding]:
    """Yield what is wrong with the archive servers, or that nothing is, and which weeks are ``lost``."""
    if lost:
        entries = ", ".join(str(entry) for entry in sorted({each.entry for each in lost}))
        yield Finding(
            "archive",
            "warning",
            f"{sum(each.samples for each in lost)} samples are lost, those of the weeks of {listed([each.week for each in lost])}:"
            " questions that need them are refused, statistics of whole hours are answered",
            f"meter-audit shows who recorded the loss (entry {entries}); retention deletes what is left of these weeks",
        )
    wrong = [each for each in servers if each.problem]
    for server, problem in wrong:
        affected = (
            f"questions for samples of its {counted(server.weeks, 'week')} fail" if server.weeks else "it has no weeks"
        )
        yield Finding(
            "archive",
            "fault" if server.weeks else "warning",
            f"the archive server {server.name} at {server.host}:{server.port or 5432}: {problem}; {affected}",
            _START
            + (
                _RESTORE
                if server.weeks or server.removals
                else f"; meter-db archive-server remove {server.name} forgets it"
            ),
        )
    if not servers:
        yield Finding("archive", "ok", "there is no archive server")
    elif not wrong:
        weeks = sum(each.server.weeks for each in servers)
        found = f"{len(servers)} archive server{'s answer and have' if len(servers) != 1 else ' answers and has'} {counted(weeks, 'week')}"
        yield Finding("archive", "ok", found)
