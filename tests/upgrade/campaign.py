"""Replaces the daemons of an earlier version one after another, in two orders, and compares what was sent, stored and answered."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import pytest

from tests.chaos.campaign import servers
from tests.chaos.site import NeverCame
from tests.chaos.site import until
from tests.upgrade.late_totals import wrong_totals
from tests.upgrade.questions import Answers
from tests.upgrade.questions import answers
from tests.upgrade.questions import differences
from tests.upgrade.questions import questions
from tests.upgrade.questions import unanswered
from tests.upgrade.rolling_site import CommandFailed
from tests.upgrade.rolling_site import RollingSite
from tests.upgrade.rolling_site import prove
from tests.upgrade.versions import InstalledVersion
from tests.upgrade.versions import NoCheckout
from tests.upgrade.versions import installed
from tests.upgrade.versions import last_with_earlier_schema
from tests.upgrade.versions import this_version

SIDE_BY_SIDE_SECONDS = 8.0
SAMPLED_IDS = 5


@dataclass(slots=True)
class UpgradeOutcome:
    """What an upgrade did to the samples, and to the answers at each of its stages."""

    order: str
    sent: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: int = 0
    dead_lettered: int = 0
    questions: int = 0
    problems: list[str] = field(default_factory=list)
    digits: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, doubled, dead-lettered or answered otherwise."""
        return bool(self.sent) and not (self.lost or self.doubled or self.dead_lettered or self.problems)

    def __str__(self) -> str:
        line = (
            f"{self.order}: {self.sent} samples sent, lost {len(self.lost)}, doubled {self.doubled}, dead-lettered {self.dead_lettered};"
            f" {self.questions} questions, {len(self.problems)} problems, {len(self.digits)} answers with other last digits"
        )
        for each in [*self.lost[:5], *self.problems[:10]]:
            line += f"\n    {each}"
        for each in self.digits:
            line += f"\n    last digits: {each}"
        return line


def collectors_first(site: RollingSite, ask: Callable[[str, str], None]) -> None:
    """Upgrade in the order that docs/upgrade.rst says: collectors, APIs, agents."""
    plan = json.loads(
        site.command(site.new, "meter-db", "upgrade", "--dry-run", "--json", config=site.new_collector.config_file)
    )
    if (plan["schema_version"], plan["problem"]) != (site.old.schema, None):
        raise CommandFailed(f"meter-db upgrade --dry-run: {plan}")
    site.new_collector.start().until_ready()
    ask("an API of the old version on the new schema", site.api.api)
    # Late samples of final hours come while both finalize; the old one finalizes alone while the other stands still.
    late = site.publish_past(site.new, "late", "late", site.stored_of("late"))
    site.new_collector.send(signal.SIGSTOP)
    until(lambda: site.final_hours_of_first_day() == 24, "the old collector to finalize the hours of late samples", 150)
    site.new_collector.send(signal.SIGCONT)
    ask("collectors of both versions", site.api.api)
    if site.stored_of("late") != late:
        raise CommandFailed("late samples were doubled or lost")
    site.collector.stop()
    time.sleep(SIDE_BY_SIDE_SECONDS)  # old agents, new collectors
    site.new_api.start().until_ready()
    ask("APIs of both versions: the new one", site.new_api.api)
    ask("APIs of both versions: the old one", site.api.api)
    site.api.stop()
    site.end_agent(signal.SIGTERM)
    site.version_of(site.agent, site.new)
    site.agent.start().until_ready()
    time.sleep(SIDE_BY_SIDE_SECONDS)


def agents_first(site: RollingSite, ask: Callable[[str, str], None]) -> None:
    """Upgrade in the other order: agents, then collectors, which upgrade the schema, and APIs."""
    site.end_agent(signal.SIGTERM)
    site.version_of(site.agent, site.new)
    site.agent.start().until_ready()
    time.sleep(SIDE_BY_SIDE_SECONDS)  # new agents, old collectors
    ask("agents of the new version", site.api.api)
    site.collector.stop()
    time.sleep(1)
    site.new_collector.start().until_ready()
    site.api.stop()
    site.new_api.start().until_ready()
    time.sleep(SIDE_BY_SIDE_SECONDS)


ORDERS: tuple[Callable[[RollingSite, Callable[[str, str], None]], None], ...] = (collectors_first, agents_first)


def run(
    order: Callable[[RollingSite, Callable[[str, str], None]], None],
    site: RollingSite,
) -> UpgradeOutcome:
    """Start the site with the old version, upgrade it in an order, and return what became of samples and answers."""
    outcome = UpgradeOutcome(order.__name__.replace("_", " "))
    site.start()
    site.api.start().until_ready()
    site.make_past()
    ids = site.sample_ids(SAMPLED_IDS)
    asked = questions(site.start_of_past, site.month, ids)
    outcome.questions = len(asked)
    before = answers(site.api.api, asked)
    outcome.problems += [f"is not answered by the old version: {each}" for each in unanswered(before)]

    def ask(stage: str, api: str) -> None:
        _compare(outcome, stage, before, answers(api, asked))
        _say(f"    {stage}: asked")

    order(site, ask)
    site.quiesce()
    # What is lost will be counted.
    _wait(lambda: site.sent() <= set(site.stored()))
    stored = site.stored()
    sent = site.sent(stored)
    outcome.sent = len(sent)
    outcome.lost = ["/".join(each) for each in sorted(sent - set(stored))]
    outcome.doubled = sum(stored.values()) - len(stored) + len(set(stored) - sent)
    outcome.dead_lettered = site.dead_letters()
    ask("the new version alone", site.new_api.api)
    outcome.problems += wrong_totals(site)
    outcome.problems += _verified(site, ids)
    return outcome


def _compare(outcome: UpgradeOutcome, stage: str, before: Answers, after: Answers) -> None:
    wrong, digits = differences(before, after)
    outcome.problems += [f"{stage}: {each}" for each in wrong]
    outcome.digits += [f"{stage}: {each}" for each in digits]


def _verified(site: RollingSite, ids: Sequence[str]) -> list[str]:
    """Return what the new version does not verify: signatures, the audit log, proofs, and closed statements."""
    problems = []
    of_new = site.new_collector.config_file
    statement = site.directory / f"{site.month}.acme.json"
    annex = site.directory / "annex"
    for words in (
        ("meter-verify",),
        ("meter-audit", "verify"),
        ("meter-rate", "export", f"{site.month}.acme", "--format", "annex", "--output", annex),
        ("meter-rate", "verify", statement, "--annex", annex),
        ("meter-rate", "reproduce", f"{site.month}.acme"),
        ("meter-db", "status"),
    ):
        try:
            site.command(site.new, *words, config=of_new)
        except CommandFailed as error:
            problems.append(str(error))
    for id in ids:
        try:
            prove(site.new_api.api, id)
        except (AssertionError, TypeError, OSError) as error:
            problems.append(f"the proof of {id} does not hold: {error!r}")
    return problems


def _wait(arrived: Callable[[], object]) -> None:
    try:
        until(arrived, "samples", 60)
    except NeverCame:
        return


def main(words: Sequence[str]) -> int:
    """Upgrade from the revision in ``words``, or from the last one with an earlier schema; return the exit status."""
    try:
        revision = words[0] if words and words[0] else last_with_earlier_schema()
        old, new = installed(revision), this_version()
    except NoCheckout as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _say(f"from {old.name} (schema version {old.schema}) to this checkout (schema version {new.schema})")
    with tempfile.TemporaryDirectory(prefix="meter-upgrade-") as top:
        return _upgrade_in_all_orders(old, new, Path(top))


def _upgrade_in_all_orders(old: InstalledVersion, new: InstalledVersion, top: Path) -> int:
    bad = 0
    with servers(top) as (rabbitmq, postgresql):
        for order in ORDERS:
            site = RollingSite(rabbitmq, postgresql, top / order.__name__, old, new)
            try:
                outcome = run(order, site)
                _say(str(outcome))
                bad += not outcome.passed
            except (NeverCame, CommandFailed, pytest.fail.Exception) as error:
                _say(f"{order.__name__}: FAILED: {error}\n{site.last_words()}")
                bad += 1
            finally:
                site.close()
    return 1 if bad else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
