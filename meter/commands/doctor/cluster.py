"""The check *cluster*: the workers of a store that is spread over several servers."""

from __future__ import annotations

from collections.abc import Iterator

from meter.commands.doctor.database import readable_bytes
from meter.commands.doctor.finding import Finding
from meter.commands.doctor.finding import Level
from meter.store import Cluster
from meter.store import UnfinishedSpread


def cluster_findings(cluster: Cluster | None, unfinished: UnfinishedSpread | None = None) -> Iterator[Finding]:
    """Yield what is wrong with the workers of a spread store, or that nothing is; ``None`` is a store on one server.

    ``unfinished`` is a spread that is not done.
    """
    if unfinished is not None:
        yield _not_done(unfinished)
    if cluster is None:
        if unfinished is None:
            yield Finding("cluster", "ok", "all samples are on this server")
        return
    found = [*_workers(cluster), *_connections(cluster)]
    yield from found or [_well(cluster)]


def _not_done(unfinished: UnfinishedSpread) -> Finding:
    level: Level = "ok" if unfinished.at_work else "warning"
    text = f"meter-db spread is not done: {unfinished.how_far}; {unfinished.who}"
    return Finding("cluster", level, text, unfinished.advice)


def _workers(cluster: Cluster) -> Iterator[Finding]:
    for worker in cluster.away:
        yield Finding(
            "cluster",
            "fault",
            f"worker {worker.name} is away: {worker.problem}; nothing is written or finalized, and queries of samples fail",
            "start it, or promote its standby: SELECT citus_update_node(nodeid, host, port)",
        )
    if cluster.in_doubt:
        yield Finding(
            "cluster",
            "warning",
            f"{cluster.in_doubt} committed transactions are in doubt: their samples are not visible yet, and hours wait for them",
            "Citus recovers them every citus.recover_2pc_interval; SELECT recover_prepared_transactions() does it at once",
        )
    for worker in cluster.workers:
        if worker.problem:
            continue
        if worker.extension_version != cluster.extension_version:
            yield Finding(
                "cluster",
                "fault",
                f"worker {worker.name} has Citus {worker.extension_version}, the coordinator {cluster.extension_version}",
                "install the same version everywhere, restart, and ALTER EXTENSION citus UPDATE on each server",
            )
        if worker.unsafe_settings:
            yield Finding(
                "cluster",
                "fault",
                f"worker {worker.name} has {worker.unsafe_settings}: a crash of it may lose samples that Meter has acknowledged",
                "set them to on there",
            )
    for sentence in cluster.uneven():
        yield Finding(
            "cluster",
            "warning",
            f"worker {sentence}",
            "SELECT citus_rebalance_start() moves shards while samples arrive",
        )


def _connections(cluster: Cluster) -> Iterator[Finding]:
    for first, second in cluster.disconnected:
        yield Finding(
            "cluster",
            "warning",
            f"{first} cannot connect to {second}: shards cannot be moved between them",
            "pg_hba.conf of the second must admit the first, and pg_dist_node of each must name reachable hosts",
        )


def _well(cluster: Cluster) -> Finding:
    shards, size = len(cluster.shards), readable_bytes(sum(worker.total_bytes for worker in cluster.workers))
    return Finding(
        "cluster", "ok", f"{len(cluster.workers)} workers answer and have {shards} shards, {size}; nothing is in doubt"
    )
