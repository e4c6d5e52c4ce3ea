"""Which domains hang, and what is told of them."""

from __future__ import annotations

import libvirt
import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.hypervisor.hung_domains import LOOKING_SECONDS
from meter.hypervisor.hung_domains import HangingDomains
from meter.hypervisor.hung_domains import hanging_domains


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
def test_a_domain_hangs_that_has_been_silent_for_long(info: tuple[int, ...], expected: dict[str, float]) -> None:
    connection = PretendedConnection(PretendedDomain("web", *info), PretendedDomain("idle", 0, 0, 0))
    assert hanging_domains(connection, 5.0, Clock().seconds) == expected


def test_the_search_takes_a_bounded_time() -> None:
    clock = Clock()

    class Slow(PretendedDomain):
        def controlInfo(self) -> list[int]:
            clock.advance(LOOKING_SECONDS)
            return super().controlInfo()

    connection = PretendedConnection(*(Slow(f"web-{number}", 2, 0, 9000) for number in range(3)))
    assert set(hanging_domains(connection, 5.0, clock.seconds)) == {"web-0"}


def test_each_is_told_when_it_begins_to_hang_and_when_it_answers_again() -> None:
    hanging = HangingDomains()
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
    assert hanging.remark() == ""


def test_of_many_some_are_named() -> None:
    hanging = HangingDomains()
    with capturedLogs():
        hanging.set({f"web-{number}": 5.0 for number in range(7)})
    assert hanging.remark() == "; hanging: web-0, web-1, web-2, web-3, web-4 and 2 more"
