"""Backs up a site under load, destroys its store, restores it to a point in time and from a dump, and verifies what is there."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

from tests.chaos.site import Known
from tests.servers.postgresql import PostgreSQL
from tests.upgrade.backups import BackedUp
from tests.upgrade.backups import missing_and_added
from tests.upgrade.page import block
from tests.upgrade.questions import Answers
from tests.upgrade.questions import answers
from tests.upgrade.questions import differences
from tests.upgrade.questions import questions
from tests.upgrade.questions import unanswered
from tests.upgrade.rolling_site import RollingSite
from tests.upgrade.verified import verification_problems
from tests.upgrade.versions import InstalledVersion

LOAD_SECONDS = 5.0
SAMPLED_IDS = 3


@dataclass(frozen=True, slots=True)
class Expected:
    """What a store has at the point in time: samples, and the answers to questions; ``ids`` are those of samples."""

    ids: list[str]
    stored: Counter[Known]
    asked: list[str]
    answers: Answers


@dataclass(slots=True)
class RestoreOutcome:
    """What was restored of a store, and what is wrong with it."""

    samples: dict[str, int] = field(default_factory=dict)
    questions: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} samples {how}" for how, count in self.samples.items())
        line = f"restored: {counts}; {self.questions} questions each; {len(self.problems)} problems"
        return "\n    ".join([line, *self.problems[:10]])


def restore(rabbitmq: Any, backed_up: BackedUp, directory: Path, version: InstalledVersion) -> RestoreOutcome:
    """Run a site, back it up, lose its store, and compare what is restored with what was stored."""
    outcome = RestoreOutcome()
    site = RollingSite(rabbitmq, backed_up.server, directory, version, version)
    try:
        backed_up.run(block("pgbackrest --stanza=meter stanza-create"))
        site.start()
        site.api.start().until_ready()
        site.make_past()
        backed_up.run(block("pgbackrest --stanza=meter --type=full backup"))
        time.sleep(LOAD_SECONDS)
        backed_up.run(block("pgbackrest --stanza=meter --type=incr backup"))
        ids = site.sample_ids(SAMPLED_IDS)
        asked = questions(site.start_of_past, site.month, ids)
        outcome.questions = len(asked)
        before = answers(site.api.api, asked)
        outcome.problems += unanswered(before)
        with site.quiet():
            expected = Expected(ids, site.stored(), asked, before)
            backed_up.run(block("pg_dump"), DSN=site.dsn)
            [[moment]] = backed_up.server.execute("SELECT clock_timestamp()::text")
            time.sleep(1)
        time.sleep(LOAD_SECONDS)
        # The accident. What came after the point in time is lost with it.
        for table in ("sample", "series"):
            backed_up.server.execute(f"TRUNCATE {table}", site.dsn)
        backed_up.archive_all()
        site.collector.stop()
        site.api.stop()
        name = site.dsn.rpartition("/")[2]
        by_time = backed_up.restored_to(moment)
        _look(outcome, "to a point in time", site, by_time, f"{by_time.url.rsplit('/', 1)[0]}/{name}", expected)
        from_dump = backed_up.empty_cluster("from-dump")
        from_dump.start()
        dsn = from_dump.dsn()
        backed_up.run(block("pg_restore"), DSN=dsn)
        _look(outcome, "from a dump", site, from_dump, dsn, expected)
    finally:
        site.close()
    return outcome


def _look(
    outcome: RestoreOutcome, how: str, site: RollingSite, server: PostgreSQL, dsn: str, expected: Expected
) -> None:
    """Compare a restored store with what was stored, verify it, ask its API, and let a collector go on with it."""
    collector, api = site.move_to(server, dsn)
    found = site.stored()
    outcome.samples[how] = sum(found.values())
    problems = missing_and_added(expected.stored, found)
    api.start().until_ready()
    problems += differences(expected.answers, answers(api.api, expected.asked))[0]
    problems += verification_problems(site, expected.ids, api.api, collector.config_file)
    collector.start().until_ready()
    site.publish_past(site.new, "late", "late", site.stored_of("late"))
    problems += [f"afterwards: {each}" for each in verification_problems(site, [], api.api, collector.config_file)]
    for daemon in (collector, api):
        daemon.stop()
    outcome.problems += [f"{how}: {each}" for each in problems]
