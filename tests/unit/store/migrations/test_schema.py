"""The schema, and what the documentation says about it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from meter.settings import Config
from meter.store.maintenance.garbage_collection import BATCH_ROWS
from meter.store.maintenance.garbage_collection import NAME_TABLES
from meter.store.maintenance.maintenance import COMPACTION_AGE
from meter.store.maintenance.maintenance import COMPACTION_INTERVAL_SECONDS
from meter.store.maintenance.partitions import MAX_AGE
from meter.store.maintenance.partitions import MAX_AHEAD
from meter.store.maintenance.rollups import MAX_ALTERNATIONS
from meter.store.maintenance.rollups import MAX_METADATA_RUNS
from meter.store.maintenance.schema_upgrade import duration_class
from meter.store.migrations import migrations
from meter.store.migrations.facts import FACTS
from meter.store.migrations.facts import STOP_COLLECTORS
from meter.store.migrations.table_locks import LOCK_SECONDS

DOCS = Path(__file__).parents[4] / "docs"
PAGE = (DOCS / "store.rst").read_text(encoding="utf-8")
LAYOUT = (DOCS / "decisions" / "0005-store-layout.rst").read_text(encoding="utf-8")


def unwrapped(text):
    return " ".join(text.split())


def test_page_lists_the_tables_of_the_schema():
    statements = "".join(step.statements for step in migrations())
    tables = set(re.findall(r'^CREATE TABLE "?(\w+)"?', statements, re.MULTILINE))
    section = PAGE.split("\nTables\n------\n")[1].split("\nMaintenance\n")[0]

    assert set(re.findall(r"^``(\w+)``", section, re.MULTILINE)) == tables | {"schema_version"}


def test_pages_state_the_limits_of_the_code():
    page, layout = unwrapped(PAGE), unwrapped(LAYOUT)

    assert (BATCH_ROWS, "batches of a thousand rows" in page) == (1000, True)
    assert (COMPACTION_INTERVAL_SECONDS, "Every half hour a collector looks for weeks" in page) == (1800, True)
    assert (COMPACTION_AGE, "ended more than two days ago" in page) == (timedelta(days=2), True)
    assert (MAX_METADATA_RUNS, "changed more than three times" in page) == (4, True)
    assert (MAX_ALTERNATIONS, "alternated more than twelve times" in page) == (12, True)
    assert f"from {MAX_AGE.days} days before to {MAX_AHEAD.days} days after the database's clock" in layout
    assert (
        f"Names ({', '.join(f'``{name}``' for name in ('meter', 'resource', 'project', 'user', 'source', 'run'))})"
        in layout
    )
    assert set(NAME_TABLES) == {"meter", "resource", "project", "user", "source", "run"}


def test_page_names_settings_that_exist():
    settings = Config.model_fields["store"].annotation.model_fields

    assert set(re.findall(r"\b\w+_(?:days|days_by_meter|seconds)\b", PAGE)) <= settings.keys()


def test_page_names_the_versions_for_which_collectors_must_stop():
    page = unwrapped((DOCS / "upgrade.rst").read_text(encoding="utf-8"))
    *stops, last = [str(step) for step, facts in FACTS.items() if facts.earlier_daemons.startswith(STOP_COLLECTORS)]

    assert f"lead to the schema versions {', '.join(stops)} and {last}." in page
    assert f"not free within {LOCK_SECONDS} seconds" in page


def test_durations_are_told_as_precisely_as_they_are_known():
    seconds = [0.1, 9, 10, 59, 60, 3599, 3600]
    assert [duration_class(each) for each in seconds] == [
        *["seconds"] * 2,
        *["up to a minute"] * 2,
        *["minutes"] * 2,
        "hours",
    ]
