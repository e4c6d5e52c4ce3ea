"""Names of units of information, and warnings of meters that arrive in two units."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

import pytest
from msgspec.structs import replace
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.collector.unit_watch import MAX_METERS
from meter.collector.unit_watch import UnitWatch
from meter.message import MeteringMessage
from meter.outgoing import Signer
from meter.sample import Sample
from meter.settings.config_file import parse
from meter.signing_keys import keyring
from meter.units import binary_name
from meter.units import older_name
from tests.signed import received

KEYS = keyring(["secret"])
SAMPLE = Sample(
    name="memory",
    type="gauge",
    unit="MiB",
    volume=64,
    resource_id="r",
    timestamp=datetime(2026, 11, 27, tzinfo=UTC),
    resource_metadata={},
)


@pytest.mark.parametrize(
    ("binary", "older"),
    [
        ("MiB", "MB"),
        ("GiB", "GB"),
        ("GiB h", "GB h"),
        ("KiB/s", "KB/s"),
        ("TiB", "TB"),
        ("B", "B"),
        ("B/s", "B/s"),
        ("", ""),
        ("MiBs", "MiBs"),
        ("numMiB", "numMiB"),
        ("%", "%"),
    ],
)
def test_unit_has_a_binary_and_an_older_name(binary: str, older: str) -> None:
    assert older_name(binary) == older
    assert older_name(older) == older
    assert binary_name(older) == binary


@pytest.mark.parametrize(("setting", "unit"), [("true", "MiB"), ("false", "MB")])
def test_units_setting_changes_unit_names_and_no_volumes(setting: str, unit: str) -> None:
    units = parse(f"[units]\nbinary = {setting}", "meter-compute").units
    message = Signer(KEYS, "here", unit_name=units.name_of).message(SAMPLE).fields
    assert (message["counter_unit"], message["counter_volume"]) == (unit, 64)


def warnings(*units: str) -> list[tuple[str, str, str]]:
    watch = UnitWatch(Clock())
    with capturedLogs() as logs:
        for unit in units:
            watch.observe([received(replace(SAMPLE, unit=unit), KEYS, "here")])
    return [(each["unit"], each["others"], each["hint"]) for each in logs]


def test_meter_in_another_unit_is_logged_once_per_unit() -> None:
    hint = "; set [units] binary to the same value on all agents and collectors"
    assert warnings("MB", "MB", "MiB", "MB", "MiB", "B") == [("MiB", "MB", hint), ("B", "MB, MiB", "")]


def test_meter_in_one_unit_is_not_logged() -> None:
    assert warnings("MiB", "MiB", "MiB") == []


def test_number_of_watched_meters_is_limited() -> None:
    def messages(unit: str, *numbers: int) -> list[MeteringMessage]:
        samples = (replace(SAMPLE, name=f"instance:{number}", unit=unit) for number in numbers)
        return [received(each, KEYS, "here") for each in samples]

    watch = UnitWatch(Clock())
    watch.observe(messages("MiB", *range(MAX_METERS + 5)))
    with capturedLogs() as logs:
        watch.observe(messages("MB", MAX_METERS + 1, 1))
    assert [each["meter"] for each in logs] == ["instance:1"]
