"""Replaces the daemons of an earlier version one after another, in two orders, and compares what was sent, stored and answered."""

from __future__ import annotations

import json
import shutil
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

from meter.store.migrations.facts import STOP_COLLECTORS
from meter.store.migrations.facts import facts_of
from tests.chaos.fleet import fleet
from tests.chaos.site import NeverCame
from tests.chaos.site import until
from tests.servers import postgresql as postgresql_server
from tests.upgrade.backups import BackedUp
from tests.upgrade.late_totals import wrong_totals
from tests.upgrade.questions import Answers
from tests.upgrade.questions import answers
from tests.upgrade.questions import differences
from tests.upgrade.questions import questions
from tests.upgrade.questions import unanswered
from tests.upgrade.restoring import restore
from tests.upgrade.rolling_site import CommandFailed
from tests.upgrade.rolling_site import RollingSite
from tests.upgrade.verified import verification_problems
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
    if must_stop(site.old, site.new):
        site.collector.stop()
        site.new_collector.start().until_ready()
        ask("an API of the old version on the new schema", site.api.api)
        late = site.publish_past(site.new, "late", "late", site.stored_of("late"))
        _until_final(site)
    else:
        late = collectors_side_by_side(site, ask)
    if site.stored_of("late") != late:
        raise CommandFailed("late samples were doubled or lost")
    time.sleep(SIDE_BY_SIDE_SECONDS)  # old agents, new collectors
    site.new_api.start().until_ready()
    ask("APIs of both versions: the new one", site.new_api.api)
    ask("APIs of both versions: the old one", site.api.api)
    site.api.stop()
    site.end_agent(signal.SIGTERM)
    site.version_of(site.agent, site.new)
    site.agent.start().until_ready()
    time.sleep(SIDE_BY_SIDE_SECONDS)


def must_stop(old: InstalledVersion, new: InstalledVersion) -> bool:
    """Return whether docs/upgrade.rst says that collectors of the old version must be stopped first."""
    steps = range(old.schema + 1, new.schema + 1)
    return any(facts_of(step).earlier_daemons.startswith(STOP_COLLECTORS) for step in steps)


def collectors_side_by_side(site: RollingSite, ask: Callable[[str, str], None]) -> int:
    """Let collectors of both versions run; return how many late samples must be stored."""
    site.new_collector.start().until_ready()
    ask("an API of the old version on the new schema", site.api.api)
    # Late samples of final hours come while both versions run: first the new one finalizes them while the old one stands still, and then
    # the other way round.
    late = site.stored_of("late")
    for what, still in (("late", site.collector), ("later", site.new_collector)):
        late = site.publish_past(site.new, what, "late", late)
        site.freeze(still)
        _until_final(site)
        still.send(signal.SIGCONT)
    ask("collectors of both versions", site.api.api)
    site.collector.stop()
    return late


def _until_final(site: RollingSite) -> None:
    until(lambda: site.final_hours_of_recent_day() == 24, "the hours of late samples to be final", 180)


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
    outcome.problems += verification_problems(site, ids, site.new_api.api, site.new_collector.config_file)
    return outcome


def _compare(outcome: UpgradeOutcome, stage: str, before: Answers, after: Answers) -> None:
    wrong, digits = differences(before, after)
    outcome.problems += [f"{stage}: {each}" for each in wrong]
    outcome.digits += [f"{stage}: {each}" for each in digits]


def _wait(arrived: Callable[[], object]) -> None:
    try:
        until(arrived, "samples", 60)
    except NeverCame:
        return


def main(words: Sequence[str]) -> int:
    """Upgrade from the revision in ``words``, or from the last one with an earlier schema, and restore; return the exit status.

    The word ``restore`` alone only restores.
    """
    if not shutil.which("pgbackrest"):
        sys.stderr.write("pgBackRest is not installed: apt-get install --no-install-recommends pgbackrest\n")
        return 1
    if list(words) == ["restore"]:
        return _restore()
    try:
        revision = words[0] if words else last_with_earlier_schema()
        old, new = installed(revision), this_version()
    except NoCheckout as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _say(f"from {old.name} (schema version {old.schema}) to this checkout (schema version {new.schema})")
    with tempfile.TemporaryDirectory(prefix="meter-upgrade-") as top:
        bad = _upgrade_in_all_orders(old, new, Path(top))
    return max(bad, _restore())


def _upgrade_in_all_orders(old: InstalledVersion, new: InstalledVersion, top: Path) -> int:
    bad = 0
    with fleet(top) as servers:
        for order in ORDERS:
            site = RollingSite(servers.rabbitmq, servers.postgresql, top / order.__name__, old, new)
            try:
                outcome = run(order, site)
                _say(str(outcome))
                bad += not outcome.passed
            except (NeverCame, CommandFailed, pytest.fail.Exception) as error:
                _say(f"{order.__name__.replace('_', ' ')}: FAILED: {error}\n{site.last_words()}")
                bad += 1
            finally:
                site.close()
    return 1 if bad else 0


def _restore() -> int:
    """Back up and restore a store; return 1 if something is not as it was."""
    with tempfile.TemporaryDirectory(prefix="meter-restore-") as top, fleet(Path(top)) as servers:
        backed_up = BackedUp(postgresql_server.installed() or Path(), Path(top) / "backup")
        try:
            backed_up.server.start()
            outcome = restore(servers.rabbitmq, backed_up, Path(top) / "site", this_version())
        except (NeverCame, CommandFailed, pytest.fail.Exception) as error:
            _say(f"restore: FAILED: {error}")
            return 1
        finally:
            backed_up.close()
    _say(str(outcome))
    return 1 if outcome.problems else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
