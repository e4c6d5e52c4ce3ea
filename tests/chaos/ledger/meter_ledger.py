"""Two pollsters that write into journals of their own what they are about to return.

**ledger** measures other resources in each cycle, number by number. A line is ``PID FIRST LAST``: the samples of resources ``polled-FIRST`` to ``polled-LAST``; none while ``JOURNAL.pause``
exists, and then LAST is less than FIRST. A line of the same process after it says that those samples were kept, since
no cycle begins before the last one is on disk.

**steady** measures the same resources in each cycle. A line is ``PID TIME made`` or ``PID TIME raised``, with the time of the
cycle in seconds since 1970.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel
from zope.interface import implementer

from meter.daemon.services import sleep
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.sample import MeterDefinition
from meter.sample import Sample


class Options(BaseModel, frozen=True):
    journal: str = ""
    samples: int = 100
    seconds: float = 0.0
    """How long a poll takes after it has written into the journal."""


@implementer(ICentralPollster)
@dataclass(frozen=True)
class Ledger:
    name: ClassVar[str] = "ledger"
    meters: ClassVar[tuple[MeterDefinition, ...]] = (MeterDefinition("chaos.polled", "gauge", "1"),)
    options: Options = Options()  # noqa: RUF009  # frozen

    def configured(self, options: Options) -> Ledger:
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        return Enabled() if self.options.journal else Disabled("no journal is configured")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        first, last = next_numbers(Path(self.options.journal), self.options.samples)
        await sleep(cycle.clock, self.options.seconds)
        return [
            Sample(
                name="chaos.polled",
                type="gauge",
                unit="1",
                volume=number,
                resource_id=f"polled-{number}",
                timestamp=cycle.timestamp,
                resource_metadata={"display_name": "a sample of the campaign", "host": "chaos", "flavor": {"vcpus": 2}},
            )
            for number in range(first, last + 1)
        ]


def next_numbers(journal: Path, count: int) -> tuple[int, int]:
    """Write into ``journal`` which samples are next, and return the first and the last of them."""
    lines = journal.read_text(encoding="ascii").splitlines() if journal.exists() else []
    first = int(lines[-1].split()[2]) + 1 if lines else 1
    last = first - 1 if Path(f"{journal}.pause").exists() else first + count - 1
    with journal.open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()} {first} {last}\n")
    return first, last


class SteadyOptions(BaseModel, frozen=True):
    journal: str = ""
    resources: int = 20
    raise_every: int = 0
    """Every so many polls, one raises; 0 for none."""
    padding: int = 0
    """Length of a text in the metadata of each sample."""


@implementer(ICentralPollster)
@dataclass(frozen=True)
class Steady:
    name: ClassVar[str] = "steady"
    meters: ClassVar[tuple[MeterDefinition, ...]] = (MeterDefinition("chaos.steady", "gauge", "1"),)
    options: SteadyOptions = SteadyOptions()  # noqa: RUF009  # frozen

    def configured(self, options: SteadyOptions) -> Steady:
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        return Enabled() if self.options.journal else Disabled("no journal is configured")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        polls, raises = note_poll(Path(self.options.journal), cycle.timestamp.timestamp(), self.options.raise_every)
        if raises:
            raise RuntimeError("the campaign wants this poll to fail")
        return [
            Sample(
                name="chaos.steady",
                type="gauge",
                unit="1",
                volume=polls,
                resource_id=f"steady-{number:02}",
                project_id=f"p{number % 2 + 1}",
                timestamp=cycle.timestamp,
                resource_metadata={"padding": "x" * self.options.padding},
            )
            for number in range(self.options.resources)
        ]


def note_poll(journal: Path, at: float, raise_every: int) -> tuple[int, bool]:
    """Write into ``journal`` that a poll takes place, and return its number and whether it must raise."""
    number = journal.read_text(encoding="ascii").count("\n") + 1 if journal.exists() else 1
    raises = bool(raise_every) and number % raise_every == 0
    with journal.open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()} {at:.6f} {'raised' if raises else 'made'}\n")
    return number, raises


ledger = Ledger()
steady = Steady()
