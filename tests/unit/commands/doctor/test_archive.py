"""What the check *archive* says about archive servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from meter.commands.doctor.archive import archive_findings
from meter.store import ArchiveHealth
from meter.store import LostWeek
from meter.store.archive.archive_servers import ArchiveServer

COLD = ArchiveServer("cold", "archive1", "5433", "archive", 12, None, None, 0)
WARM = ArchiveServer("warm", "archive2", None, "archive", 0, None, None, 0)


def test_nothing_is_wrong_without_archive_servers():
    [found] = archive_findings([])
    assert (found.check, found.level) == ("archive", "ok")


def test_servers_that_answer_are_counted_with_their_weeks():
    [found] = archive_findings([ArchiveHealth(COLD, ""), ArchiveHealth(WARM, "")])
    assert (found.level, found.text) == ("ok", "2 archive servers answer and have 12 weeks")


def test_weeks_that_are_lost_are_a_warning_with_the_entries_of_the_audit_log():
    lost = [LostWeek(date(2026, 3, day), "cold", 500, date(2026, 11, 28), 17) for day in (2, 9)]
    warning, rest = archive_findings([], lost)
    assert (warning.check, warning.level, rest.level) == ("archive", "warning", "ok")
    assert "1000 samples are lost, those of the weeks of 2026-03-02, 2026-03-09" in warning.text
    assert "(entry 17)" in warning.advice


def test_server_that_is_away_is_a_fault_only_if_it_has_weeks():
    cold, warm = archive_findings([ArchiveHealth(COLD, "could not connect"), ArchiveHealth(WARM, "could not connect")])
    assert (cold.level, warm.level) == ("fault", "warning")
    assert (
        cold.text
        == "the archive server cold at archive1:5433: could not connect; questions for samples of its 12 weeks fail"
    )
    assert "archive2:5432" in warm.text
    assert "meter-db archive-server add" in cold.advice


def test_server_with_nothing_of_the_store_can_be_forgotten():
    [found] = archive_findings([ArchiveHealth(WARM, "could not connect")])
    assert "meter-db archive-server remove warm" in found.advice
    [found] = archive_findings([ArchiveHealth(replace(WARM, removals=1), "could not connect")])
    assert found.advice.endswith("meter-db archive-server lost")
