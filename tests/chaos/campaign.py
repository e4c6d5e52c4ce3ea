"""Runs faults one after another, each on a site of its own, and prints a line for each."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.chaos import hostile_messages
from tests.chaos.completeness import Comparison
from tests.chaos.completeness import compare
from tests.chaos.faults import FAULTS
from tests.chaos.faults import Fault
from tests.chaos.final_hours import final_differences
from tests.chaos.fleet import fleet
from tests.chaos.http_fuzz import hostile_http
from tests.chaos.memory import CYCLES
from tests.chaos.memory import MAX_MEGABYTES
from tests.chaos.memory import MESSAGES
from tests.chaos.memory import measure
from tests.chaos.site import KINDS
from tests.chaos.site import Known
from tests.chaos.site import NeverCame
from tests.chaos.site import Site
from tests.chaos.site import meters
from tests.chaos.waiting import Patience

RECOVERY_SECONDS = 60.0
"""If none of the missing samples comes for so long, and nothing waits, none will."""

HOSTILE_MESSAGES = 5000
HOSTILE_SEED = 15
CAMPAIGNS = frozenset({"hostile", "memory", "http"})
"""The words for what is no fault."""

LOGS = Path(__file__).parents[2] / "var/chaos"
HEADING = f"{'fault':52} {'sent':>7} {'stored':>7} {'lost':>5} {'doubled':>7} {'dead':>6} {'recovered':>10}  ledger"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the samples of a site. ``reported``: what the agent said it lost; ``seconds`` to recover.

    ``ledger``: what the completeness ledger says of the pollster ``steady``, compared with the truth. ``final``: where hours that
    are final have other samples than are stored, in a cluster.
    """

    fault: Fault
    sent: int
    stored: int
    lost: tuple[str, ...]
    doubled: int
    dead_lettered: int
    reported: int
    seconds: float
    ledger: Comparison
    final: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is lost but what may be, which is told, nothing is doubled or dead-lettered, and the ledger is right."""
        lost = len(self.lost) + (0 if self.fault.expires else self.ledger.lost)
        told = lost == self.reported if self.fault.may_lose else not lost and not self.reported
        return told and not self.doubled and not self.dead_lettered and not self.ledger.differences and not self.final

    def __str__(self) -> str:
        line = f"{self.fault.name:52} {self.sent:7} {self.stored:7} {len(self.lost):5} {self.doubled:7} {self.dead_lettered:6} {self.seconds:8.1f} s  {self.ledger}"
        if self.fault.may_lose:
            line += f"  (the agent reported {self.reported} lost, {self.ledger.lost} of them of steady)"
        if self.lost and not self.passed:
            line += f"\n    lost: {', '.join(self.lost[:5])}{' ...' if len(self.lost) > 5 else ''}"
        for difference in self.ledger.differences[:5]:
            line += f"\n    ledger: {difference}"
        for difference in self.final[:5]:
            line += f"\n    final: {difference}"
        for note in self.notes:
            line += f"\n    {note}"
        return line


def run(fault: Fault, rabbitmq: Any, postgresql: Any, directory: Path) -> Outcome:
    """Do ``fault`` to a new site and return what became of its samples."""
    site = Site(rabbitmq, postgresql, directory, **fault.site)
    try:
        fault.prepare(site)
        site.start()
        fault.do(site)
        over = time.monotonic()
        before = site.sent()
        tolerated = site.dropped() if fault.may_lose else 0
        _wait(
            site,
            lambda: before,
            lambda missing, stored: len(missing) <= tolerated and meters(stored - before) >= KINDS,
        )
        seconds = time.monotonic() - over
        time.sleep(1)
        site.quiesce()
        reported = site.dropped()
        _wait(site, site.sent, lambda missing, _: _may_be_lost(missing, reported if fault.may_lose else 0))
        stored = site.stored()
        sent = site.sent(stored)
        ledger = compare(site, "expired" if fault.expires else "spool dropped" if fault.may_lose else "")
        return Outcome(
            fault=fault,
            sent=len(sent),
            stored=len(stored),
            lost=tuple("/".join(each) for each in sorted(sent - set(stored))),
            doubled=sum(stored.values()) - len(stored) + len(set(stored) - sent),
            dead_lettered=site.dead_letters(),
            reported=reported,
            seconds=seconds,
            ledger=ledger,
            final=tuple(final_differences(site)) if fault.servers in ("citus", "patroni") else (),
            notes=tuple(site.notes),
        )
    except NeverCame as error:
        raise NeverCame(f"{error}\n{site.last_words()}") from None
    finally:
        site.close()


def _may_be_lost(missing: Collection[tuple[str, ...]], dropped: int) -> bool:
    """Return whether ``missing`` are at most the samples that an agent has ``dropped``: those of publishers arrive, some of them last."""
    return len(missing) <= dropped and all(resource.startswith("polled-") for resource, *_ in missing)


def _wait(site: Site, sent: Callable[[], set[Known]], arrived: Callable[[Collection[Known], set[Known]], bool]) -> None:
    """Wait until ``arrived``, given what is missing and what is stored, as long as more comes or something waits: a busy machine takes its time.

    What has not come when nothing waits any more is lost, and will be counted as such.
    """
    fewest, patience = sys.maxsize, Patience(site, RECOVERY_SECONDS)
    while True:
        stored = set(site.stored())
        missing = sent() - stored
        if arrived(missing, stored):
            return
        if len(missing) < fewest:
            fewest = len(missing)
            patience.restart()
        elif patience.ended() and missing.isdisjoint(site.stored()):
            return
        time.sleep(0.1)


def main(words: Sequence[str]) -> int:
    """Run the faults that ``words`` name; return the exit status."""
    faults = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    if not faults and not CAMPAIGNS.intersection(words):
        sys.stderr.write(f"No fault is named {' or '.join(words)}; without a word, all are run.\n")
        return 2
    done = bad = 0
    with (
        tempfile.TemporaryDirectory(prefix="meter-chaos-") as top,
        fleet(Path(top)) as servers,
    ):
        rabbitmq, postgresql = servers.rabbitmq, servers.postgresql
        _say(HEADING)
        for number, fault in enumerate(faults):
            if missing := fault.missing():
                _say(f"{fault.name:52} not done: {missing}")
                continue
            done += 1
            site = Path(top) / f"site-{number}"
            passed = False
            try:
                with servers.of(fault.servers) as (broker, store):
                    outcome = run(fault, broker, store, site)
                _say(str(outcome))
                passed = outcome.passed
            except (NeverCame, AssertionError, RuntimeError, psycopg2.Error, pytest.fail.Exception) as error:
                _say(f"{fault.name:52} FAILED: {error}")
            if not passed:
                bad += 1
                _say(f"    logs: {_keep(site)}")
        if not words or "hostile" in words:
            numbers = [int(word) for word in words if word.isdecimal()]
            count, seed = [*numbers, *(HOSTILE_MESSAGES, HOSTILE_SEED)[len(numbers) :]][:2]
            report = hostile_messages.run(count, seed, rabbitmq, postgresql, Path(top) / "hostile", time_health=True)
            done += 1
            bad += bool(report.problems)
            _say(f"seed {seed}: {report}")
        if not words or "memory" in words:
            empty, waiting, most = measure(rabbitmq, Path(top) / "memory")
            flat = most - empty < MAX_MEGABYTES
            done += 1
            bad += not flat
            _say(
                f"memory of an agent: {empty:.0f} MB with an empty spool, {waiting:.0f} MB while {CYCLES * MESSAGES * 100} "
                f"samples wait, {most:.0f} MB at most while they go out"
            )
        if not words or "http" in words:
            attacked = hostile_http(rabbitmq, postgresql, Path(top) / "http")
            done += 1
            bad += not attacked.passed
            _say(str(attacked))
            if not attacked.passed:
                _say(f"    logs: {_keep(Path(top) / 'http')}")
    _say(f"{done - bad} of {done} as promised")
    return 1 if bad else 0


def _keep(site: Path) -> Path:
    """Keep journals and logs of a fault that went wrong; return where they are."""
    kept = LOGS / site.name
    for file in [*site.glob("*/*.log"), *site.glob("*/journal"), *site.glob("*/steady"), *site.glob("published")]:
        (kept / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, kept / file.parent.name)
    return kept


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
