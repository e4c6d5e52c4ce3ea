"""The check *archive*: the servers to which old weeks were moved."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator

from meter.commands.doctor.finding import Finding
from meter.store import ArchiveHealth


def archive_findings(servers: Collection[ArchiveHealth]) -> Iterator[Finding]:
    """Yield what is wrong with the archive servers, or that nothing is."""
    wrong = [each for each in servers if each.problem]
    for server, problem in wrong:
        affected = f"questions for samples of its {server.weeks} weeks fail" if server.weeks else "it has no weeks"
        yield Finding(
            "archive",
            "fault" if server.weeks else "warning",
            f"the archive server {server.name} at {server.host}:{server.port or 5432}: {problem}; {affected}",
            "start it, correct its address with meter-db archive-server add, or restore its backup",
        )
    if not servers:
        yield Finding("archive", "ok", "there is no archive server")
    elif not wrong:
        weeks = sum(each.server.weeks for each in servers)
        found = f"{len(servers)} archive server{'s answer and have' if len(servers) != 1 else ' answers and has'} {weeks} weeks"
        yield Finding("archive", "ok", found)
