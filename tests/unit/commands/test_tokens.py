"""The command line of ``meter-token``."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
from twisted.python import usage

from meter.commands.command import CommandError
from meter.commands.tokens import Options
from meter.commands.tokens import expiry
from meter.commands.tokens import name_of

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["create"],
        ["create", "--admin", "--project", "blue"],
        ["create", "--project", "blue", "stray"],
        ["create", "--admin", "--days", "1", "--expires", "2027-01-01"],
        ["revoke"],
        ["revoke", "0123456789ab", "--json"],
        ["remove"],
    ],
)
def test_incomplete_or_contradictory_command_line_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(usage.UsageError):
        Options().parseOptions(arguments)


@pytest.mark.parametrize(
    ("time", "days", "expected"),
    [
        (None, None, None),
        ("2027-01-01", None, datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T12:00:00+01:00", None, datetime(2027, 1, 1, 11, tzinfo=UTC)),
        (None, "0.5", NOW + timedelta(hours=12)),
    ],
)
def test_expiry_is_a_time_or_a_number_of_days(time: str | None, days: str | None, expected: datetime | None) -> None:
    assert expiry(time, days, NOW) == expected


@pytest.mark.parametrize(
    ("time", "days"),
    [
        ("2026-11-27T11:59:59", None),
        ("soon", None),
        ("", None),
        *((None, days) for days in ("0", "-1", "x", "nan", "inf", "9e9")),
    ],
)
def test_expiry_that_is_past_or_no_time_is_refused(time: str | None, days: str | None) -> None:
    with pytest.raises(CommandError):
        expiry(time, days, NOW)


@pytest.mark.parametrize("text", [" blue", "blue ", "bl\nue", "b\0", "x" * 256, "\x1b[2J"])
def test_name_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="--project"):
        name_of("--project", text)


def test_name_in_any_alphabet_is_accepted() -> None:
    assert name_of("--user", "Zoë Ωμέγα 北京") == "Zoë Ωμέγα 北京"
    assert name_of("--user", None) is None
