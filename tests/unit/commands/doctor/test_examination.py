"""Running the checks: what fails or hangs is named, and delays nothing else."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.commands.command import CommandError
from meter.commands.doctor.checks import CHECKS
from meter.commands.doctor.command import context_of
from meter.commands.doctor.examination import GROUP_SECONDS
from meter.commands.doctor.examination import ExaminationContext
from meter.commands.doctor.examination import examine
from meter.commands.doctor.finding import Finding
from meter.interfaces import Unavailable
from meter.settings.config_file import parse


async def healthy(context, found):
    found.append(Finding("broker", "ok", "it runs"))
    found.append(Finding("queues", "ok", "they are short"))


async def failing(context, found):
    raise Unavailable("db1: refused")


async def hanging(context, found):
    found.append(Finding("database", "ok", "connected"))
    await Deferred()


def examined(clock, *groups):
    context = ExaminationContext(clock, None, parse("", "meter-collector"))
    results = []
    Deferred.fromCoroutine(examine(context, groups)).addCallback(results.append)
    return results


def test_what_a_group_leaves_out_is_not_checked():
    [found] = examined(Clock(), (("broker", "permissions", "queues"), healthy))
    assert [(each.check, each.level) for each in found] == [
        ("broker", "ok"),
        ("permissions", "not checked"),
        ("queues", "ok"),
    ]


def test_a_group_that_fails_is_a_warning_and_the_others_are_shown():
    [found] = examined(Clock(), (("database", "disk"), failing), (("broker", "queues"), healthy))
    assert [(each.check, each.level) for each in found] == [
        ("broker", "ok"),
        ("queues", "ok"),
        ("database", "warning"),
        ("disk", "not checked"),
    ]
    assert "db1: refused" in found[2].text


def test_a_group_that_hangs_ends_after_its_time_with_what_it_had_found():
    clock = Clock()
    results = examined(clock, (("database", "disk", "clocks"), hanging), (("broker", "queues"), healthy))
    clock.advance(GROUP_SECONDS - 1)
    assert results == []
    clock.advance(1)
    [found] = results
    assert [(each.check, each.level) for each in found][2:] == [
        ("database", "ok"),
        ("disk", "warning"),
        ("clocks", "not checked"),
    ]


def test_all_groups_together_end_within_a_minute():
    assert GROUP_SECONDS < 60


def test_an_invalid_configuration_is_a_fault_and_the_rest_is_not_checked(tmp_path):
    path = tmp_path / "meter.toml"
    path.write_text('[bus]\nurl = "amqp://meter:hunter2@"\n[stor]\n')
    found = context_of(Clock(), str(path))
    assert [each.level for each in found if each.check == "configuration"] == ["fault"] * len(
        [each for each in found if each.check == "configuration"]
    )
    assert {each.check for each in found} == set(CHECKS)
    assert {each.level for each in found if each.check != "configuration"} == {"not checked"}
    assert not any("hunter2" in each.text for each in found)


def test_a_configuration_file_that_is_missing_is_a_wrong_command_line(tmp_path):
    with pytest.raises(CommandError):
        context_of(Clock(), str(tmp_path / "missing.toml"))
