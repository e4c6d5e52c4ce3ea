"""Runs all checks side by side, each group with a time limit, with whatever can be reached."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import NamedTuple
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults

from meter.agent.destination import fingerprints
from meter.bus.amqp import BrokerInspection
from meter.bus.dead_letter_queues import BrokerDeadLetters
from meter.bus.dead_letter_queues import DeadLetterQueue
from meter.bus.dead_letter_queues import SpooledDeadLetters
from meter.bus.dead_letters import DeadLetter
from meter.bus.queue_names import CONSUMED_QUEUES
from meter.bus.queue_names import WAITING_QUEUES
from meter.commands.command import spool_of
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.commands.doctor import broker as broker_checks
from meter.commands.doctor import certificates as certificate_checks
from meter.commands.doctor import configuration as configuration_checks
from meter.commands.doctor import daemons as daemon_checks
from meter.commands.doctor import database as database_checks
from meter.commands.doctor.archive import archive_findings
from meter.commands.doctor.checks import CHECKS
from meter.commands.doctor.cluster import cluster_findings
from meter.commands.doctor.finding import Finding
from meter.commands.doctor.secrets import secret_findings
from meter.commands.doctor.status_pages import fetched
from meter.commands.doctor.status_pages import status_finding
from meter.commands.doctor.status_pages import status_urls
from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.daemon.threads import CallThread
from meter.interfaces import Unavailable
from meter.settings import Config
from meter.settings.config_file import SINGLE
from meter.settings.config_file import has_key
from meter.settings.config_file import keyring
from meter.settings.problems import ConfigError
from meter.store import DatabaseInspection

T = TypeVar("T")

ANSWER_SECONDS = 8.0
"""How long a broker or database may take for one answer."""

GROUP_SECONDS = 40.0
"""How long a group of checks may take; the groups run side by side."""

LETTERS_SECONDS = 15.0
"""How long dead letters are read."""

THREAD_SECONDS = 12.0
"""How long something that may block, in a thread of its own, may take."""


class ExaminationContext(NamedTuple):
    """What the checks need: the reactor, the path of the configuration file, and the configuration."""

    reactor: Any
    path: str | None
    config: Config

    def now(self) -> datetime:
        """Return the time of this host's clock."""
        return datetime.fromtimestamp(wall_seconds(self.reactor), UTC)

    def blocking(self, name: str, function: Callable[[], T]) -> Deferred[T]:
        """Call ``function`` in a daemon thread; fail after :data:`THREAD_SECONDS`, whatever it does."""
        thread = CallThread(self.reactor, name)
        answer = within(self.reactor, THREAD_SECONDS, thread.call(function))
        thread.finish()
        return answer


Found = list[Finding]

Group = tuple[Sequence[str], Callable[[ExaminationContext, Found], Awaitable[None]]]
"""The names of checks, and what makes their findings."""


async def examine(context: ExaminationContext, groups: Sequence[Group] | None = None) -> list[Finding]:
    """Return the findings of all checks, in the order of :data:`~meter.commands.doctor.checks.CHECKS`."""
    chosen = GROUPS if groups is None else groups
    results = await gatherResults([Deferred.fromCoroutine(_run(context, *group)) for group in chosen])
    order = {name: number for number, name in enumerate(CHECKS)}
    return sorted((finding for found in results for finding in found), key=lambda finding: order[finding.check])


async def _run(
    context: ExaminationContext, names: Sequence[str], work: Callable[[ExaminationContext, Found], Awaitable[None]]
) -> Found:
    """Return the findings of one group. The first check that is missing after a failure is a warning, the rest is not checked."""
    found: Found = []
    try:
        await within(context.reactor, GROUP_SECONDS, Deferred.fromCoroutine(_awaited(work(context, found))))
        reason = "an earlier check says why"
        level = "not checked"
    except DeferredTimeout:
        reason, level = f"no result within {GROUP_SECONDS:g} s", "warning"
    except Exception as error:
        reason, level = f"{type(error).__name__}: {error}", "warning"
    found = list(found)  # what comes too late is not shown
    for name in names:
        if all(finding.check != name for finding in found):
            if level == "warning":
                found.append(Finding(name, "warning", f"could not be checked: {reason}", "run it again"))
                reason, level = "an earlier check did not finish", "not checked"
            else:
                found.append(Finding(name, "not checked", reason))
    return found


async def _awaited(work: Awaitable[None]) -> None:
    await work


# --- this host -----------------------------------------------------------------------------------------------------


async def _configuration(context: ExaminationContext, found: Found) -> None:
    found += configuration_checks.configuration_findings(context.path, context.config)
    found += await context.blocking(
        "plugins", lambda: list(configuration_checks.plugin_findings(context.path, context.config))
    )


async def _secrets(context: ExaminationContext, found: Found) -> None:
    found += secret_findings(context.path, context.config)


async def _certificates(context: ExaminationContext, found: Found) -> None:
    sources = list(certificate_checks.sources(context.config))

    async def look(source: certificate_checks.Certificates) -> None:
        try:
            certificates = await context.blocking("certificates", source.read)
        except (OSError, ValueError, DeferredTimeout) as error:
            found.append(Finding("certificates", "not checked", f"{source.label}: {error}"))
            return
        found.extend(certificate_checks.certificate_findings(source.label, source.advice, certificates, context.now()))

    await gatherResults([Deferred.fromCoroutine(look(source)) for source in sources])
    if not found:
        found.append(Finding("certificates", "ok", "the configuration uses no TLS"))


async def _status_pages(context: ExaminationContext, found: Found) -> None:
    urls = status_urls(context.config)
    if urls and context.config.status.tls.client_ca_file:
        text = "[status.tls] client_ca_file: the ports require client certificates, and this command has none"
        found.append(Finding("status pages", "not checked", text))
        return

    async def look(name: str, url: str) -> None:
        try:
            answer = await context.blocking("status page", lambda: fetched(url))
        except (OSError, ValueError, DeferredTimeout) as error:
            text = f"{name}, {url}: nothing answers on this host ({error})"
            found.append(Finding("status pages", "not checked", text))
            return
        found.append(status_finding(name, url, answer))

    await gatherResults([Deferred.fromCoroutine(look(name, url)) for name, url in urls.items()])
    if not found:
        found.append(Finding("status pages", "not checked", "[status] listen is no TCP port of this host"))


# --- the broker ----------------------------------------------------------------------------------------------------


async def _broker(context: ExaminationContext, found: Found) -> None:
    url = context.config.bus.url.get_secret_value()
    if url == "local:":
        found += [
            Finding("broker", "ok", "the bus is in the process of twistd meter"),
            Finding("permissions", "ok", "an in-process bus has no users"),
            Finding("queues", "ok", "an in-process bus has no queues"),
        ]
        await _dead_letters(context, found)
        return
    inspection = BrokerInspection(
        context.reactor, url, clock=context.reactor, name="meter-doctor", answer_seconds=ANSWER_SECONDS
    )
    try:
        try:
            version = await inspection.open()
        except Unavailable as error:
            found.append(
                Finding(
                    "broker",
                    "fault",
                    f"the broker cannot be used: {error}",
                    "start it, or correct [bus] url; agents spool meanwhile, and lose nothing while their spools have room",
                )
            )
            return
        found.append(broker_checks.version_finding(version, str(inspection.address)))
        found += broker_checks.host_findings(await inspection.others_away())
        found.append(broker_checks.permission_finding(await inspection.missing_permissions(), inspection.address.user))
        if inspection.blocked is not None:
            found.append(
                Finding(
                    "broker",
                    "fault",
                    f"the broker blocks publishing: {inspection.blocked}",
                    "give it memory or disk space: rabbitmqctl status shows the alarm",
                )
            )
        names = (*CONSUMED_QUEUES, *WAITING_QUEUES)
        queues = {name: await inspection.queue(name) for name in names}
        found += broker_checks.queue_findings(queues)
    finally:
        await inspection.close()
    await _dead_letters(context, found)


def dead_letters_of(context: ExaminationContext) -> DeadLetterQueue:
    """Return the configured queue of dead letters."""
    config = context.config
    if config.bus.url.get_secret_value() == "local:":
        return SpooledDeadLetters(
            spool_of(config, "dead-letters"),
            spool_of(config, SINGLE),
            clock=context.reactor,
            max_bytes=config.spool.max_bytes,
        )
    return BrokerDeadLetters(
        context.reactor,
        config.bus.url.get_secret_value(),
        clock=context.reactor,
        name="meter-doctor",
        max_body_bytes=config.bus.max_body_bytes,
    )


async def _dead_letters(context: ExaminationContext, found: Found) -> None:
    queue = dead_letters_of(context)
    letters: list[DeadLetter] = []
    end = context.reactor.seconds() + LETTERS_SECONDS
    try:
        total = await queue.open()
        while len(letters) < broker_checks.SAMPLED_LETTERS and context.reactor.seconds() < end:
            if (entry := await queue.next()) is None:
                break
            letters.append(replace(entry.dead_letter, body=b""))  # bodies have megabytes
    finally:
        await queue.close()
    sample = broker_checks.LetterSample(max(total, len(letters)), letters)
    found += broker_checks.dead_letter_findings(sample, context.config.bus.max_dead_letters)


# --- the database --------------------------------------------------------------------------------------------------


async def _database(context: ExaminationContext, found: Found) -> None:
    config = context.config
    found += database_checks.state_dir_findings(config.meter.state_dir)
    try:
        async with database_server(context.reactor, config) as (dsn, retry_seconds):

            def make() -> DatabaseInspection:
                return DatabaseInspection(context.reactor, dsn, clock=context.reactor, answer_seconds=ANSWER_SECONDS)

            async with connected(context.reactor, make, min(retry_seconds, GROUP_SECONDS / 2)) as inspection:
                await _inspect(context, inspection, found)
    except Unavailable as error:
        advice = "start it, or correct [store] dsn; collectors wait for it, and samples wait in the broker's queues"
        found.append(Finding("database", "fault", f"the database cannot be used: {error}", advice))


async def _inspect(context: ExaminationContext, inspection: DatabaseInspection, found: Found) -> None:
    server = await inspection.server()
    found += database_checks.server_findings(server)
    found.append(database_checks.durability_finding(server))
    found.append(database_checks.disk_finding(server.data_directory, server.database_bytes))
    if server.schema_problem:
        return
    cluster = await inspection.cluster()
    found += cluster_findings(cluster, await inspection.unfinished_spread())
    found += archive_findings(await inspection.archives(), await inspection.lost_weeks())
    before = context.now()
    now = await inspection.now()
    local = min(max(now, before), context.now())  # the answer took a while
    keys = _local_keys(context.config, local)
    states = daemon_checks.daemon_states(await inspection.heartbeats())
    limited = daemon_checks.limited
    found += limited(daemon_checks.daemon_findings(states, now))
    found += limited(daemon_checks.version_findings(states, now))
    found += limited(daemon_checks.clock_findings(states, now, local))
    found += limited(daemon_checks.key_findings(states, now, keys))
    found += limited(daemon_checks.spool_findings(states, now))
    if cluster is not None and cluster.away:
        return  # partitions and finalization need all samples; what is missing says the check of the cluster
    newest = await inspection.newest_sample()
    found.append(database_checks.partition_finding(await inspection.partitions(now), newest))
    seconds = context.config.store.finalize_after_seconds
    oldest = await inspection.oldest_hour_not_final(now - timedelta(seconds=seconds))
    found.append(database_checks.finalization_finding(oldest, now, seconds))


def _local_keys(config: Config, at: datetime) -> list[tuple[str, str]] | None:
    """Return ids and fingerprints of the keys with which daemons of this host sign; ``None`` if there is none to read."""
    try:
        if not has_key(config):
            return None
        usable = [key for key in keyring(config, make=False).keys if "meter" in key.schemes and key.covers(at)]
    except (OSError, ConfigError):
        return None  # the check of the secrets says why
    return [(key.id, fingerprints([key])[0]) for key in usable]


def _names(first: str, last: str) -> tuple[str, ...]:
    names = list(CHECKS)
    return tuple(names[names.index(first) : names.index(last) + 1])


def _groups() -> Iterator[Group]:
    yield _names("configuration", "plugins"), _configuration
    yield ("secrets",), _secrets
    yield ("certificates",), _certificates
    yield ("status pages",), _status_pages
    yield _names("broker", "dead letters"), _broker
    yield _names("database", "spools"), _database


GROUPS: tuple[Group, ...] = tuple(_groups())
