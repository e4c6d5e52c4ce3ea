"""Which domains hang, and how they are reported."""

from __future__ import annotations

import libvirt
import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.hypervisor.hung_domains import SEARCH_SECONDS
from meter.hypervisor.hung_domains import HungDomains
from meter.hypervisor.hung_domains import hung_domains


class PretendedDomain:
    def __init__(self, name: str, *info: int) -> None:
        self._name = name
        self._info = info

    def ID(self) -> int:
        return 1

    def name(self) -> str:
        return self._name

    def controlInfo(self) -> list[int]:
        if not self._info:
            raise libvirt.libvirtError("it has gone")
        return list(self._info)


class PretendedConnection:
    def __init__(self, *domains: PretendedDomain) -> None:
        self._domains = domains

    def listAllDomains(self) -> list[PretendedDomain]:
        return list(self._domains)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ((0, 0, 0), {}),
        ((1, 0, 60_000), {}),  # a migration, which may take its time
        ((2, 0, 4999), {}),
        ((2, 0, 5000), {"web": 5.0}),
        ((3, 1, 0), {"web": 0.0}),
        ((), {}),
    ],
    ids=["idle", "at work", "busy for a moment", "silent", "unreachable", "gone"],
)
def test_domain_hangs_when_its_emulator_is_silent_for_long(info: tuple[int, ...], expected: dict[str, float]) -> None:
    connection = PretendedConnection(PretendedDomain("web", *info), PretendedDomain("idle", 0, 0, 0))
    assert hung_domains(connection, 5.0, Clock().seconds) == expected


def test_search_has_a_time_limit() -> None:
    clock = Clock()

    class Slow(PretendedDomain):
        def controlInfo(self) -> list[int]:
            clock.advance(SEARCH_SECONDS)
            return super().controlInfo()

    connection = PretendedConnection(*(Slow(f"web-{number}", 2, 0, 9000) for number in range(3)))
    assert set(hung_domains(connection, 5.0, clock.seconds)) == {"web-0"}


def test_domain_is_logged_when_it_begins_to_hang_and_when_it_answers() -> None:
    hanging = HungDomains()
    with capturedLogs() as logs:
        hanging.set({"a": 5.0})
        hanging.set({"a": 65.0, "b": 5.0})
        hanging.set({"b": 65.0})
        hanging.set({})
    assert [(each["domain"], each.get("seconds")) for each in logs] == [
        ("a", 5.0),
        ("b", 5.0),
        ("a", None),
        ("b", None),
    ]
    assert hanging.readiness_suffix() == ""


def test_readiness_names_some_of_many_hung_domains() -> None:
    hanging = HungDomains()
    with capturedLogs():
        hanging.set({f"web-{number}": 5.0 for number in range(7)})
    assert hanging.readiness_suffix() == "; hung domains: web-0, web-1, web-2, web-3, web-4 and 2 more"
