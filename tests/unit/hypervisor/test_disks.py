"""Sizes of disks that the bulk call of libvirt does not return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt
import pytest
from twisted.internet.task import Clock

from meter.hypervisor.disks import QUERY_SECONDS
from meter.hypervisor.disks import DiskSizes


class PretendedDomain:
    """A running domain; ``asked`` has the disks whose sizes libvirt was asked for."""

    def __init__(self, uuid: str = "u", number: int = 1) -> None:
        self.uuid = uuid
        self.number = number
        self.asked: list[str] = []
        self.failure: int | None = None
        self.alive = True
        self.takes: Callable[[], object] = lambda: None

    def ID(self) -> int:
        return self.number

    def UUIDString(self) -> str:
        return self.uuid

    def connect(self) -> PretendedDomain:
        return self

    def isAlive(self) -> bool:
        return self.alive

    def blockInfo(self, name: str) -> list[int]:
        self.asked.append(name)
        self.takes()
        if self.failure is not None:
            error = libvirt.libvirtError("no")
            error.err = (self.failure, 0, "no", 2, None, None, None, 0, 0)
            raise error
        return [500, 300, 400]


def disk(number: int = 0, allocation: int = 0, **more: Any) -> dict[str, Any]:
    sizes = {"name": f"vd{number}", "allocation": allocation, "capacity": 500, "physical": 300, **more}
    return {f"block.{number}.{name}": value for name, value in sizes.items()}


UNWRITTEN = {"block.count": 1, **disk()}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def domain() -> PretendedDomain:
    return PretendedDomain()


def test_unwritten_disk_has_the_sizes_of_domblkinfo(clock: Clock, domain: PretendedDomain) -> None:
    corrected = DiskSizes({}, clock.seconds).corrected(domain, UNWRITTEN)
    assert corrected == {**UNWRITTEN, "block.0.allocation": 300, "block.0.physical": 400}
    assert UNWRITTEN["block.0.allocation"] == 0, "what libvirt gave stays as it was"


def test_sizes_are_queried_once_per_disk_and_run(clock: Clock, domain: PretendedDomain) -> None:
    first = DiskSizes({}, clock.seconds)
    answers = [first.corrected(domain, UNWRITTEN)]
    second = DiskSizes(first.found, clock.seconds)
    answers.append(second.corrected(domain, UNWRITTEN))
    assert answers[0] == answers[1]
    assert domain.asked == ["vd0"]
    domain.number = 2
    DiskSizes(second.found, clock.seconds).corrected(domain, UNWRITTEN)
    assert domain.asked == ["vd0", "vd0"]


@pytest.mark.parametrize("change", [{"physical": 301}, {"capacity": 600}, {"backingIndex": 7}])
def test_sizes_are_queried_again_for_another_size_or_medium(
    clock: Clock, domain: PretendedDomain, change: dict[str, int]
) -> None:
    first = DiskSizes({}, clock.seconds)
    first.corrected(domain, UNWRITTEN)
    DiskSizes(first.found, clock.seconds).corrected(domain, {"block.count": 1, **disk(**change)})
    assert domain.asked == ["vd0", "vd0"]


@pytest.mark.parametrize(
    "stats",
    [
        {},
        {"block.count": 0},
        {"block.count": 1},
        {"block.count": 1, **disk(allocation=5)},
        {"block.count": 1, "block.0.name": "sda"},
        {"block.count": 1, **disk(name="")},
    ],
)
def test_sizes_are_not_queried_for_written_disks_and_empty_drives(
    clock: Clock, domain: PretendedDomain, stats: dict[str, Any]
) -> None:
    assert DiskSizes({}, clock.seconds).corrected(domain, stats) == stats
    assert domain.asked == []


def test_sizes_are_not_queried_for_a_domain_that_is_off(clock: Clock) -> None:
    domain = PretendedDomain(number=-1)
    assert DiskSizes({}, clock.seconds).corrected(domain, UNWRITTEN) == UNWRITTEN
    assert domain.asked == []


def test_sizes_that_exceed_the_time_limit_are_queried_by_later_readings(clock: Clock, domain: PretendedDomain) -> None:
    domain.takes = lambda: clock.advance(QUERY_SECONDS)
    stats = {"block.count": 2, **disk(0), **disk(1)}
    first = DiskSizes({}, clock.seconds)
    corrected = first.corrected(domain, stats)
    assert corrected["block.0.allocation"] == 300
    assert not {"block.1.allocation", "block.1.physical"} & set(corrected), "no size rather than a wrong one"
    assert DiskSizes(first.found, clock.seconds).corrected(domain, stats)["block.1.physical"] == 400
    assert domain.asked == ["vd0", "vd1"]


def test_sizes_stay_and_are_not_queried_again_after_an_error(clock: Clock, domain: PretendedDomain) -> None:
    domain.failure = libvirt.VIR_ERR_OPERATION_INVALID
    first = DiskSizes({}, clock.seconds)
    assert first.corrected(domain, UNWRITTEN) == UNWRITTEN
    assert DiskSizes(first.found, clock.seconds).corrected(domain, UNWRITTEN) == UNWRITTEN
    assert domain.asked == ["vd0"]


@pytest.mark.parametrize("sign", ["the domain is gone", "the connection is lost"])
def test_domain_that_is_gone_raises(clock: Clock, domain: PretendedDomain, sign: str) -> None:
    domain.alive = sign != "the connection is lost"
    domain.failure = libvirt.VIR_ERR_NO_DOMAIN if domain.alive else libvirt.VIR_ERR_RPC
    reading = DiskSizes({}, clock.seconds)
    with pytest.raises(libvirt.libvirtError):
        reading.corrected(domain, UNWRITTEN)
    assert reading.found == {}
