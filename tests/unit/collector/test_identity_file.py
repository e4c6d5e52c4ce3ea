"""The file with names: read when it changes, with errors that have file and line."""

from __future__ import annotations

import os
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.bus.dead_letters import call_at_once
from meter.collector.identity_file import BadIdentityFile
from meter.collector.identity_file import IdentityFile
from meter.collector.identity_file import read_names
from meter.identity_report import IdentityReport
from meter.identity_report import identity_report
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.report import read_report
from tests.store_messages import KEYS

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

GOOD = """
# Who is who
[[identity]]
id = "lab"
name = "Laboratory"
domain = "house"
since = 2026-01-01

[[identity]]
kind = "user"
id = "ann"
name = "Ann Ω"

[[identity]]
id = "lab"
name = "Workshop"
since = 2026-06-01T12:00:00+02:00
"""


class Bus:
    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.down = False

    async def publish(self, publication: Publication) -> None:
        if self.down:
            raise Unavailable("the bus is down")
        self.publications.append(publication)

    def reports(self) -> list[IdentityReport]:
        found = [identity_report(read_report(each.body, KEYS).content) for each in self.publications]
        self.publications = []
        return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identities.toml"


def test_names_are_read(path: Path) -> None:
    path.write_text(GOOD)
    assert [(each.kind, each.id, each.name, each.domain, each.since, each.exact) for each in read_names(path, NOW)] == [
        ("project", "lab", "Laboratory", "house", "2026-01-01T00:00:00", True),
        ("user", "ann", "Ann Ω", None, "2026-11-20T12:00:00", False),
        ("project", "lab", "Workshop", None, "2026-06-01T10:00:00", True),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[identity]]\nid = ", "(at end of document)"),
        ('\n\n[[identity]]\nid = "a"\n', ", line 3: Object missing required field `name`"),
        ('[[identity]]\nid="a"\nname="b"\n[[identity]]\nid="c"\nname="d"\ncolour="e"\n', ", line 4: "),
        ('[[identity]]\nid="a"\nname="b"\nkind="role"\n', ", line 1: Invalid enum value 'role'"),
        ('[[identity]]\nid="a"\nname=5\n', ", line 1: Expected `str`, got `int`"),
        ('[[identity]]\nid="a"\nname="b"\nsince="2026-01-01"\n', ", line 1: since must be a date"),
        ('[[identity]]\nid="a"\nname="b"\nsince=12:00:00\n', ", line 1: since must be a date"),
        ('[[identity]]\nid=""\nname="b"\n', ", line 1: the id must not be empty"),
        ('[[identity]]\nid="a"\nname="b"\nsince=2027-01-01\n', ", line 1: since must not be in the future"),
        ('[[identity]]\nid="a"\nname="b\\u0000"\n', ", line 1: a text has at most 255 characters and no NUL"),
        (f'[[identity]]\nid="a"\nname="{"b" * 256}"\n', ", line 1: a text has at most 255"),
        ('[[identity]]\nid="a"\nname="b"\n[[identity]]\nid="a"\nname="c"\n', ", line 4: several names"),
        (
            '[[identity]]\nid="a"\nname="b"\nsince=2026-01-01\n[[identity]]\nid="a"\nname="c"\nsince=2026-01-01\n',
            ", line 5: project 'a' has two names since",
        ),
        ('[[identities]]\nid="a"\n', "only [[identity]] is known, not identities"),
        ('identity = "a"\n', "only [[identity]] is known"),
        ("\udcff", "codec can't decode"),
    ],
)
def test_error_names_file_and_line(path: Path, text: str, problem: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadIdentityFile) as caught:
        read_names(path, NOW)
    assert str(caught.value).startswith(str(path))
    assert problem in str(caught.value)


def test_file_without_names_is_good(path: Path) -> None:
    path.write_text("")
    assert read_names(path, NOW) == []


def write(path: Path, text: str) -> None:
    path.write_text(text)


def reader(path: Path, bus: Bus) -> IdentityFile:
    clock = Clock()
    clock.advance(NOW.timestamp())
    off_reactor: Any = call_at_once
    return IdentityFile(str(path), bus, lambda _: KEYS.keys[0], clock, off_reactor)


@pytest_twisted.ensureDeferred
async def test_file_is_published_when_it_changes_and_only_then(path: Path) -> None:
    bus = Bus()
    file = reader(path, bus)
    write(path, GOOD)
    await file.read_if_changed()
    reports = bus.reports()
    assert [(each.complete, [name.name for name in each.names]) for each in reports] == [
        (("project",), ["Laboratory", "Workshop"]),
        (("domain",), []),
        (("user",), ["Ann Ω"]),
    ]
    assert {each.origin for each in reports} == {"file"}

    await file.read_if_changed()
    assert bus.reports() == []

    write(path, "")
    await file.read_if_changed()
    assert [(each.complete, each.names) for each in bus.reports()] == [
        (("project",), ()),
        (("domain",), ()),
        (("user",), ()),
    ]


@pytest_twisted.ensureDeferred
async def test_wrong_or_missing_file_changes_nothing_until_it_is_mended(path: Path) -> None:
    bus = Bus()
    file = reader(path, bus)
    await file.read_if_changed()
    write(path, "[[identity]]\n")
    await file.read_if_changed()
    assert bus.reports() == []
    write(path, GOOD)
    os.utime(path, (1, 1))
    await file.read_if_changed()
    assert len(bus.reports()) == 3
    os.unlink(path)
    await file.read_if_changed()
    assert bus.reports() == []


@pytest_twisted.ensureDeferred
async def test_file_is_published_again_if_the_bus_did_not_take_it(path: Path) -> None:
    bus = Bus()
    file = reader(path, bus)
    write(path, GOOD)
    bus.down = True
    await file.read_if_changed()
    bus.down = False
    await file.read_if_changed()
    assert len(bus.reports()) == 3
