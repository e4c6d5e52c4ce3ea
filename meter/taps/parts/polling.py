"""The agent: a spool and its outbox, polling cycles, their schedule, and leader election where agents share the work."""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from twisted.application.service import IService

from meter.agent.leader import LeaderElection
from meter.agent.outbox import Outbox
from meter.agent.polling import CycleResult
from meter.agent.polling import Polling
from meter.agent.scheduler import AlignedSchedule
from meter.agent.spool import Spool
from meter.daemon.heartbeats import free_bytes
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.services import StagedService
from meter.daemon.threads import CallThread
from meter.heartbeat import SpoolState
from meter.interfaces import IBus
from meter.interfaces import ISkippedSamples
from meter.plugins.activation import Activation
from meter.plugins.registry import Decision
from meter.plugins.registry import Kind
from meter.taps.daemon import Daemon
from meter.taps.parts.process_locks import spool_destination


def add_polling(
    daemon: Daemon,
    bus: IBus,
    kinds: Sequence[Kind],
    providers: Mapping[Any, Any] | None = None,
    after_cycle: Callable[[CycleResult], object] = lambda _: None,
    *,
    leader_group: str = "",
    timeout_seconds: float | None = None,
) -> Outbox:
    """Add the outbox and the polling cycles of the pollsters of ``kinds``; return the outbox.

    Of the agents with the same ``leader_group`` on the bus only the elected leader polls. ``timeout_seconds`` limits one pollster;
    by default ``[polling] timeout_seconds`` does.
    """
    settings = daemon.config.polling
    thread = CallThread(daemon.reactor, "spool")
    path = daemon.state_dir / f"{daemon.name}.spool"
    spool = Spool(
        path,
        filled_for=spool_destination(daemon, path),
        max_bytes=daemon.config.spool.max_bytes,
        max_age_seconds=daemon.config.spool.max_age_seconds,
        clock=daemon.reactor,
        run=lambda function, *arguments: thread.call(lambda: function(*arguments)),
    )
    publishing = PublishingMetrics(daemon.registry)
    daemon.spool_state = lambda: SpoolState(
        spool.rows, spool.bytes, daemon.config.spool.max_bytes, spool.oldest_seconds, free_bytes(path.parent)
    )
    publishing.watch_spool(lambda: spool.rows, lambda: spool.bytes, lambda: spool.oldest_seconds)
    outbox = Outbox(
        spool,
        bus,
        daemon.reactor,
        metrics=publishing,
        batch=daemon.config.bus.window,
    )
    daemon.add(outbox)
    metrics = PollingMetrics(daemon.registry)
    context = daemon.plugin_context({ISkippedSamples: metrics, IBus: bus, **(providers or {})})
    polling = Polling(
        context,
        outbox.put,
        daemon.keys,
        source=daemon.config.meter.source,
        timeout_seconds=timeout_seconds or settings.timeout_seconds,
        batch_samples=settings.batch_samples,
        metrics=metrics,
        after_cycle=after_cycle,
        interval_of=settings.interval_of,
        unit_name=daemon.config.units.name_of,
    )

    def begin(active: Sequence[Decision]) -> IService:
        polling.pollsters = tuple(active)
        intervals = {each.name: settings.interval_of(each.name) for each in active}

        async def cycle(due: frozenset[float]) -> None:
            await polling.cycle([each for each in active if intervals[each.name] in due])

        agent = StagedService(daemon.reactor)
        election = LeaderElection(bus, leader_group, cycle, daemon.reactor) if leader_group else None
        if election:
            election.setServiceParent(agent)
        AlignedSchedule(
            election.run_if_leader if election else cycle,
            set(intervals.values()),
            daemon.reactor,
            name="polling cycle",
            offset_seconds=random.random() * settings.jitter_seconds,
            on_skipped=metrics.cycles_skipped,
        ).setServiceParent(agent)
        return agent

    candidates = daemon.plugins(*kinds)
    for pattern in settings.intervals:
        if not any(fnmatchcase(each.name, pattern) for each in candidates):
            daemon.warnings.append(f"[polling] intervals: {pattern!r} matches no installed pollster")
    daemon.activate(Activation(candidates, context, begin, name="pollsters"))
    daemon.polling = polling
    return outbox
