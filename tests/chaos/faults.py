"""The faults. Each is done to a site at work and returns when it is over and whatever it killed has been started again."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal

import psycopg2

from tests.archived import add_server
from tests.chaos.broker import delete_if_empty
from tests.chaos.broker import limit_free_disk
from tests.chaos.broker import purge
from tests.chaos.broker_cluster import node_is_cut_off
from tests.chaos.broker_cluster import nodes_die
from tests.chaos.clocks import an_hour_ahead
from tests.chaos.clocks import behind
from tests.chaos.clocks import clock_goes_back
from tests.chaos.clocks import faketime_missing
from tests.chaos.clocks import samples_expire
from tests.chaos.clocks import twenty_days_behind
from tests.chaos.clocks import with_a_clock_to_set
from tests.chaos.cluster import cluster_missing
from tests.chaos.cluster import commits_are_cut_off
from tests.chaos.cluster import coordinator_dies
from tests.chaos.cluster import coordinator_fails_over
from tests.chaos.cluster import worker_dies
from tests.chaos.cluster import worker_is_added
from tests.chaos.completeness import polls_of
from tests.chaos.database_failover import primary_dies
from tests.chaos.site import Site
from tests.chaos.site import until
from tests.servers.patroni import patroni_missing
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed

Servers = Literal["single", "citus", "rabbitmq", "patroni"]
"""``citus``: samples are on the workers of a cluster; ``rabbitmq``: three nodes; ``patroni``: a primary and its standby."""

DUPLICATES = 'meter_collected_samples_total{outcome="duplicate"}'


@dataclass(frozen=True, slots=True)
class Fault:
    """``name`` says what happens. ``site``: further arguments of the :class:`~tests.chaos.site.Site`.

    ``servers``: what has the place of the one broker or the one database. ``may_lose``: the agent may lose samples, as many as it reports. ``expires``: the retention deletes samples. ``missing`` says why it cannot be done here, or "".
    """

    name: str
    do: Callable[[Site], None]
    site: dict[str, Any] = field(default_factory=dict)
    servers: Servers = "single"
    may_lose: bool = False
    expires: bool = False
    missing: Callable[[], str] = lambda: ""
    prepare: Callable[[Site], None] = lambda site: None


def next_poll(site: Site) -> None:
    """Return when the agent has just begun another poll."""
    before = site.journal.stat().st_size
    while site.journal.stat().st_size == before:
        time.sleep(0.005)


def agent_ends_while_polling(number: int) -> Callable[[Site], None]:
    """Four times, from the middle of a poll on to when its samples are on disk and on their way."""

    def do(site: Site) -> None:
        for delay in (0.05, 0.2, 0.25, 0.3):
            next_poll(site)
            time.sleep(delay)
            site.end_agent(number)
            site.agent.start()
            site.agent.until_ready()

    return do


def agent_begins_to_drain(site: Site) -> None:
    """Return when a spool that had filled is going out, a window of it is published, and no confirm has come back."""
    site.agent_line.refuse()
    until(lambda: site.agent.metric("meter_spool_messages") >= 8, "a spool that fills")
    site.agent_line.hold_confirms()
    site.agent_line.accept()
    until(lambda: site.agent_line.held, "a window of messages")
    time.sleep(0.5)


def agent_ends_while_draining(number: int) -> Callable[[Site], None]:
    """When a window of messages is published and none of them is confirmed to the agent."""

    def do(site: Site) -> None:
        agent_begins_to_drain(site)
        site.end_agent(number)
        site.agent_line.release()
        site.agent.start()
        site.agent.until_ready()

    return do


def agent_is_told_twice(site: Site) -> None:
    """It waits for confirms that do not come; the second SIGTERM ends that at once."""
    agent_begins_to_drain(site)
    process = site.agent.process
    assert process is not None
    site.agent.send(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None, "the agent did not wait for confirms"
    site.agent.send(signal.SIGTERM)
    process.wait(2)
    site.agent_line.release()
    site.agent.start()
    site.agent.until_ready()


def collector_dies_between_commit_and_ack(site: Site) -> None:
    """The acknowledgements are held on their way while the database commits."""
    for _ in range(2):
        site.collector_line.hold("up")
        before = sum(site.stored().values())
        until(lambda before=before: sum(site.stored().values()) > before + 100, "commits without acknowledgements")
        site.collector.stop(signal.SIGKILL)
        site.collector_line.release()
        site.collector.start().until_ready()
        until(lambda: site.collector.metric(DUPLICATES), "what comes a second time")


WRITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO sample%'"


def collector_dies_in_a_batch(site: Site) -> None:
    """A lock keeps the transaction open with its rows not yet written."""
    for _ in range(2):
        connection = psycopg2.connect(site.dsn)
        connection.cursor().execute("LOCK TABLE sample IN SHARE MODE")
        until(lambda: site.postgresql.execute(WRITING)[0][0], "a batch that is being written")
        site.collector.stop(signal.SIGKILL)
        connection.close()
        site.collector.start().until_ready()


def broker_restarts(site: Site) -> None:
    site.rabbitmq.restart()


def broker_dies(site: Site) -> None:
    site.rabbitmq.kill()
    site.rabbitmq.start()


def broker_disk_is_full(site: Site) -> None:
    """The alarm, for five seconds: ``connection.blocked`` to whoever publishes."""
    limit_free_disk(site.rabbitmq, 1 << 50)
    until(lambda: "block" in (site.agent.reason("bus") or ""), "the agent to be blocked")
    time.sleep(5)
    limit_free_disk(site.rabbitmq, 1_000_000)


def database_restarts(site: Site) -> None:
    site.postgresql.restart()


def database_dies(site: Site) -> None:
    site.postgresql.kill()
    site.postgresql.start()


def database_hangs(seconds: float) -> Callable[[Site], None]:
    """Connections stay open and nothing is answered."""

    def do(site: Site) -> None:
        site.postgresql.freeze()
        time.sleep(seconds)
        site.postgresql.thaw()

    return do


def network_is_cut_in_frames(site: Site) -> None:
    """Within a frame of the agent's, of the collector's deliveries, and of what the collector publishes."""
    for line, direction in ((site.agent_line, "up"), (site.collector_line, "down"), (site.collector_line, "up")):
        for _ in range(2):
            cuts = line.cuts
            line.cut_in_a_frame(direction)
            until(lambda line=line, cuts=cuts: line.cuts > cuts, "a large frame to be cut")


def queues_are_deleted(site: Site) -> None:
    """At a moment when nothing is in them or on its way; what comes from then on must wait for the new ones.

    RabbitMQ confirms what is on its way into a queue that is being deleted, and deletes it.
    """
    for _ in range(2):
        for queue in ("meter.metering", "meter.notifications"):
            with site.quiet():
                until(lambda queue=queue: delete_if_empty(site.url, queue), f"{queue} to be empty")
            time.sleep(1)


PACKING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%INTO packed_samples%'"
PACKED = "SELECT count(*) FROM packed_samples"


def packer_dies(site: Site) -> None:
    """In the transaction of a group, four times, and its session with it; in the end it packs for some seconds undisturbed."""
    for _ in range(4):
        packer = site.process_of("packer")
        try:
            until(lambda: site.postgresql.execute(PACKING)[0][0], "a group that is being packed")
        finally:
            packer.kill()
            packer.wait()
    packer = site.process_of("packer")
    try:
        time.sleep(5)
        until(lambda: site.postgresql.execute(PACKED, site.dsn)[0][0], "packed samples")
    finally:
        packer.kill()
        packer.wait()


def database_dies_while_packing(site: Site) -> None:
    """Twice; the packer and the collector find it again."""
    packer = site.process_of("packer")
    try:
        for _ in range(2):
            until(lambda: site.postgresql.execute(PACKING)[0][0], "a group that is being packed")
            site.postgresql.kill()
            site.postgresql.start()
        until(lambda: site.postgresql.execute(PACKED, site.dsn)[0][0], "packed samples")
    finally:
        packer.kill()
        packer.wait()


ARCHIVED = "SELECT count(*) FROM packed_samples WHERE archived"


def archiver_and_archive_die(site: Site) -> None:
    """The archiver four times, while rows are moved, and twice the archive server, for some seconds in which samples of its week arrive."""
    directory = site.directory / "archive"
    directory.mkdir()
    binaries = installed()
    assert binaries is not None
    archive = PostgreSQL(binaries, directory)
    archive.start()
    site.others.append(archive.kill)
    database = archive.dsn()
    add_server(site.dsn, database)
    for n in range(6):
        archiver = site.process_of("archiver")
        try:
            before = site.postgresql.execute(ARCHIVED, site.dsn)
            until(
                lambda before=before: site.postgresql.execute(ARCHIVED, site.dsn) != before, "rows that are moved", 240
            )
            if n % 3 == 2:
                archive.kill()
                time.sleep(4)
                archive.start()
                until(lambda: site.postgresql.execute(ARCHIVED, site.dsn)[0][0], "archived rows", 240)
        finally:
            archiver.kill()
            archiver.wait()


def one_of_two_collectors_dies(site: Site) -> None:
    other = site.another_collector()
    for delay in (0.5, 1.0, 1.5):
        other.start().until_ready()
        time.sleep(delay)
        other.stop(signal.SIGKILL)
    other.start().until_ready()


def one_of_two_collectors_hangs(site: Site) -> None:
    """In a transaction that has written its samples, for as long as the other one takes to store them, which come again to it."""
    connection = psycopg2.connect(site.dsn)
    connection.cursor().execute("LOCK TABLE sample IN SHARE MODE")
    until(lambda: site.postgresql.execute(WRITING)[0][0], "a batch that is being written")
    site.collector.send(signal.SIGSTOP)
    began = time.monotonic()
    connection.close()
    site.another_collector().start().until_ready()
    try:
        sent = site.sent(site.stored())
        until(lambda: sent <= set(site.stored()), "the samples of the collector that hangs", 300)
        site.notes.append(
            f"all was stored {time.monotonic() - began:.1f} s after the collector had stopped in a transaction"
        )
    finally:
        site.collector.send(signal.SIGCONT)


def spool_disk_is_full(site: Site) -> None:
    """No file of the agent may grow any more, and the broker is away."""
    site.agent_line.refuse()
    process = site.agent.process
    assert process is not None
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    log = next((site.agent.directory / "state").glob("*.spool-wal"))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size + 300_000, hard))
    # The log is reused from its start, so that the file of the spool may have to grow to the limit first.
    until(lambda: site.dropped() >= 300, "a spool that takes no more", 240)
    site.agent_line.accept()
    time.sleep(3)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))


def nothing_happens(site: Site) -> None:
    """Some cycles as usual."""
    time.sleep(10)


def agent_is_not_started(site: Site) -> None:
    site.end_agent(signal.SIGTERM)
    time.sleep(10)
    site.agent.start()
    site.agent.until_ready()


def agent_hangs(site: Site) -> None:
    site.agent.send(signal.SIGSTOP)
    time.sleep(10)
    site.agent.send(signal.SIGCONT)


def spool_is_full(site: Site) -> None:
    """The broker is away until the spool has dropped samples of some cycles; reports stay."""
    site.pause_agent()
    # What is dropped while it waits for its confirm is reported as lost although it may have arrived.
    until(lambda: site.agent.metric("meter_spool_messages") == 0, "an empty spool")
    site.agent_line.refuse()
    until(lambda: site.dropped() >= 200, "a spool that drops samples")
    site.agent_line.accept()
    until(lambda: site.agent.metric("meter_spool_messages") == 0, "an empty spool")
    site.pause.unlink()
    time.sleep(3)


def with_a_short_wait_for_reports(site: Site) -> None:
    """Reports that wait for lost ones give up after some seconds."""
    config = site.collector.config_file
    config.write_text(config.read_text() + "[completeness]\nwait_seconds = 5.0\n")


def reports_are_lost(site: Site) -> None:
    """Those of the last cycles of the agent's process, from the queue; their samples are stored."""
    site.reports_are_lost = True
    site.collector.stop(signal.SIGTERM)
    before = len(polls_of(site))
    until(lambda: len(polls_of(site)) >= before + 4, "some cycles")
    site.end_agent(signal.SIGTERM)
    until(lambda: purge(site.url, "meter.reports"), "reports in their queue")
    site.collector.start().until_ready()
    site.agent.start()
    site.agent.until_ready()


SMALL_SPOOL = """
[spool]
max_bytes = 2000000
"""
SLOW_POLLS = {"poll_seconds": 0.2}

FAULTS = [
    Fault("none", nothing_happens),
    Fault("agent not started for ten seconds", agent_is_not_started),
    Fault("SIGSTOP of the agent for ten seconds", agent_hangs),
    Fault("pollster that raises every third time", nothing_happens, {"raise_every": 3}),
    Fault("spool full while the broker is away", spool_is_full, {"padding": 20000, "more": SMALL_SPOOL}, may_lose=True),
    Fault("SIGKILL of the agent while polling", agent_ends_while_polling(signal.SIGKILL), SLOW_POLLS),
    Fault("SIGTERM of the agent while polling", agent_ends_while_polling(signal.SIGTERM), SLOW_POLLS),
    Fault("SIGKILL of the agent while draining", agent_ends_while_draining(signal.SIGKILL)),
    Fault("SIGTERM of the agent while draining", agent_ends_while_draining(signal.SIGTERM)),
    Fault("second SIGTERM of an agent that drains", agent_is_told_twice),
    Fault("SIGKILL of the collector between commit and ack", collector_dies_between_commit_and_ack),
    Fault("SIGKILL of the collector in the middle of a batch", collector_dies_in_a_batch),
    Fault("restart of RabbitMQ", broker_restarts),
    Fault("SIGKILL of RabbitMQ", broker_dies),
    Fault("disk alarm of RabbitMQ", broker_disk_is_full),
    Fault("restart of PostgreSQL", database_restarts),
    Fault("SIGKILL of PostgreSQL", database_dies),
    Fault("PostgreSQL answers nothing for 30 s", database_hangs(30)),
    Fault("SIGKILL of the packer while it packs", packer_dies),
    Fault("SIGKILL of PostgreSQL while a week is packed", database_dies_while_packing),
    Fault("SIGKILL of the archiver, and of the archive server", archiver_and_archive_die),
    Fault("network cut in the middle of frames", network_is_cut_in_frames),
    Fault("queues deleted", queues_are_deleted),
    Fault("one of two collectors dies every few seconds", one_of_two_collectors_dies),
    Fault("one of two collectors hangs in a transaction", one_of_two_collectors_hangs),
    Fault("disk of the spool full", spool_disk_is_full, may_lose=True),
    Fault("clock set back by an hour", clock_goes_back, missing=faketime_missing, prepare=with_a_clock_to_set),
    Fault("agent's clock an hour ahead", nothing_happens, missing=faketime_missing, prepare=an_hour_ahead),
    Fault("cycle reports lost", reports_are_lost, prepare=with_a_short_wait_for_reports),
    Fault("agent's clock an hour behind", nothing_happens, missing=faketime_missing, prepare=behind(3600)),
    Fault(
        "samples older than the retention",
        samples_expire,
        {"resources": 2},
        expires=True,
        missing=faketime_missing,
        prepare=twenty_days_behind,
    ),
    Fault("worker of a cluster added, shards moved", worker_is_added, servers="citus", missing=cluster_missing),
    Fault("SIGKILL of a worker of a cluster", worker_dies, servers="citus", missing=cluster_missing),
    Fault("worker cut off before COMMIT PREPARED", commits_are_cut_off, servers="citus", missing=cluster_missing),
    Fault("SIGKILL of the coordinator of a cluster", coordinator_dies, servers="citus", missing=cluster_missing),
    Fault("failover of the coordinator of a cluster", coordinator_fails_over, servers="citus", missing=cluster_missing),
    Fault("SIGKILL of each node of a RabbitMQ cluster", nodes_die, servers="rabbitmq"),
    Fault("node of a RabbitMQ cluster cut off", node_is_cut_off, servers="rabbitmq"),
    Fault("the primary dies, Patroni promotes its standby", primary_dies, servers="patroni", missing=patroni_missing),
]
