"""One thing is not called by its plural, in what commands, pages and findings say."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

import pytest

from meter.commands.importing.command import report
from meter.commands.importing.importer import ImportCounts
from meter.commands.importing.importer import ImportedMeter
from meter.counts import counted


@pytest.mark.parametrize(
    ("number", "thing", "text"),
    [
        (0, "sample", "0 samples"),
        (1, "sample", "1 sample"),
        (2, "dead letter", "2 dead letters"),
        (1, "dead letter", "1 dead letter"),
        (2, "entry", "2 entries"),
        (3, "time series", "3 time series"),
        (12345, "row", "12345 rows"),
    ],
)
def test_name_of_what_is_counted_follows_the_number(number: int, thing: str, text: str) -> None:
    assert counted(number, thing) == text


def test_thousands_may_be_separated() -> None:
    assert counted(12345, "row", ",") == "12,345 rows"


def test_import_of_one_meter_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    counts = ImportCounts(meters={("cpu", "gauge", "%"): ImportedMeter(samples=1, first=at, last=at)})
    report(counts, "stored", {"json": False, "dry-run": False, "rejected": "rejected.json"})
    assert capsys.readouterr().out.splitlines()[0] == "1 sample of 1 meter stored"
