"""Collects what ``meter-doctor why`` judges: plugins, the database, heartbeats, queues and dead letters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults

from meter.bus.amqp import BrokerInspection
from meter.bus.amqp import QueueState
from meter.bus.dead_letters import DeadLetter
from meter.bus.queue_names import CONSUMED_QUEUES
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.commands.doctor.configuration import configured_plugins
from meter.commands.doctor.daemons import DaemonState
from meter.commands.doctor.daemons import daemon_states
from meter.commands.doctor.evidence import Evidence
from meter.commands.doctor.examination import ANSWER_SECONDS
from meter.commands.doctor.examination import GROUP_SECONDS
from meter.commands.doctor.examination import ExaminationContext
from meter.commands.doctor.examination import dead_letters_of
from meter.daemon.services import within
from meter.interfaces import Unavailable
from meter.plugins.registry import Decision
from meter.store import DatabaseInspection
from meter.store import SampleTrace
from meter.store import sample_trace

MAX_LETTERS = 5000
"""How many dead letters are searched, the oldest first."""

SEARCH_SECONDS = 25.0
"""How long dead letters are searched."""

FAILURES_SINCE = timedelta(days=1)
"""For how long before the time failures and rejected samples are looked for."""


async def evidence_of(context: ExaminationContext, resource: str, meter: str, at: datetime, project: str) -> Evidence:
    """Return what can be found out; what does not answer is named in ``not_looked_at``."""
    missing: dict[str, str] = {}
    found: dict[str, Any] = {}
    plugins: Sequence[Decision] = await context.blocking(
        "plugins", lambda: configured_plugins(context.config)[0].decisions
    )
    names = [each.name for each in plugins if each.plugin is not None]

    async def look(what: str, work: Any) -> None:
        try:
            found[what] = await within(context.reactor, GROUP_SECONDS, Deferred.fromCoroutine(work))
        except DeferredTimeout:
            missing[what] = f"no result within {GROUP_SECONDS:g} s"
        except Exception as error:
            missing[what] = str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"

    empty = Evidence(resource=resource, meter=meter, at=at, now=at, plugins=plugins)
    pollsters = [each.name for each in empty.makers if each.name in names]
    works = {
        "database": _database(context, resource, meter, at, pollsters),
        "broker": _queues(context),
        "dead letters": _letters(context, resource, meter),
    }
    await gatherResults([Deferred.fromCoroutine(look(what, work)) for what, work in works.items()])
    trace, daemons, now = found.get("database", (None, (), context.now()))
    letters, letters_left = found.get("dead letters", (None, 0))
    return Evidence(
        resource=resource,
        meter=meter,
        at=at,
        now=now,
        project=project,
        plugins=plugins,
        trace=trace,
        daemons=daemons,
        queues=found.get("broker"),
        letters=letters,
        letters_left=letters_left,
        not_looked_at=missing,
    )


async def _database(
    context: ExaminationContext, resource: str, meter: str, at: datetime, pollsters: Sequence[str]
) -> tuple[SampleTrace, Sequence[DaemonState], datetime]:
    async with database_server(context.reactor, context.config) as (dsn, retry_seconds):

        def make() -> DatabaseInspection:
            return DatabaseInspection(context.reactor, dsn, clock=context.reactor, answer_seconds=ANSWER_SECONDS)

        async with connected(context.reactor, make, min(retry_seconds, GROUP_SECONDS / 2)) as inspection:
            server = await inspection.server()
            if server.schema_problem:
                raise Unavailable(server.schema_problem)
            trace = await sample_trace(inspection, resource, meter, at, at - FAILURES_SINCE, pollsters)
            return trace, daemon_states(await inspection.heartbeats()), await inspection.now()


async def _queues(context: ExaminationContext) -> Mapping[str, QueueState | None]:
    url = context.config.bus.url.get_secret_value()
    if url == "local:":
        return {}
    inspection = BrokerInspection(
        context.reactor, url, clock=context.reactor, name="meter-doctor", answer_seconds=ANSWER_SECONDS
    )
    try:
        await inspection.open()
        return {name: await inspection.queue(name) for name in CONSUMED_QUEUES}
    finally:
        await inspection.close()


async def _letters(context: ExaminationContext, resource: str, meter: str) -> tuple[Sequence[DeadLetter], int]:
    """Return the dead letters that name both, without their bodies, and how many were not searched."""
    queue = dead_letters_of(context)
    matching: list[DeadLetter] = []
    searched = 0
    end = context.reactor.seconds() + SEARCH_SECONDS
    try:
        total = await queue.open()
        while searched < MAX_LETTERS and context.reactor.seconds() < end:
            if (entry := await queue.next()) is None:
                total = searched
                break
            searched += 1
            if names_both(entry.dead_letter, resource, meter):
                matching.append(replace(entry.dead_letter, body=b""))
    finally:
        await queue.close()
    return matching, total - searched


def names_both(letter: DeadLetter, resource: str, meter: str) -> bool:
    """Return whether a dead letter names the resource and the meter, in its body or its headers."""
    return all(text == letter.subject or _has(letter.body, text) for text in (resource, meter))


def _has(body: bytes, text: str) -> bool:
    """Return whether ``text`` is a value in a JSON body, or in the message that is a text in it."""
    plain = json.dumps(text, ensure_ascii=False)
    forms = {plain, json.dumps(text)}
    forms |= {json.dumps(each)[1:-1] for each in forms} | {json.dumps(each, ensure_ascii=False)[1:-1] for each in forms}
    return any(each.encode("utf-8", "surrogatepass") in body for each in forms)
