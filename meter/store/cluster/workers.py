"""The workers of a cluster, as its coordinator sees them: which answer, what they store, and what is in doubt there.

A transaction that writes to several workers is prepared on each and then committed at the coordinator. A worker that is
cut off before it is told to commit has the rows, but nobody sees them: they are *in doubt* until Citus recovers the
transaction, which it tries every ``citus.recover_2pc_interval``, or ``SELECT recover_prepared_transactions()`` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import NamedTuple

from meter.interfaces import Unavailable
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Session

MAX_UNEVENNESS = 1.5
"""A worker with more than this multiple of the mean bytes of a worker is *uneven*: rebalancing helps."""

MIN_UNEVEN_BYTES = 100_000_000
"""Fewer bytes than this on the largest worker are never uneven: a few series decide where they are."""

CONNECT_SECONDS = 4
"""For how long the coordinator tries to connect to a worker; Citus' own default is 30 seconds."""

HAS_NODES = "SELECT to_regclass('pg_catalog.pg_dist_node') IS NOT NULL"

IS_DISTRIBUTED = """
SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = 'sample'::regclass AND partmethod = 'h')
"""
"""Where dividing the samples was stopped, Citus knows the table, which is at the coordinator as before."""

NODES = """
SELECT nodename, nodeport, isactive, shouldhaveshards
FROM pg_dist_node WHERE noderole = 'primary' AND groupid <> 0 ORDER BY nodename, nodeport
"""
"""The workers."""

OF_WORKER = """
SELECT json_build_object(
    'version', current_setting('server_version'),
    'extension', (SELECT extversion FROM pg_extension WHERE extname = 'citus'),
    'standby', pg_is_in_recovery(),
    'unsafe', (
        SELECT json_object_agg(name, setting) FROM pg_settings
        WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
    ),
    'prepared', (
        SELECT json_agg(json_build_array(gid, extract(epoch FROM clock_timestamp() - prepared)))
        FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'citus\\_%'
    ),
    'shards', (
        SELECT json_agg(json_build_array(logical.relname, s.shardminvalue, greatest(c.reltuples, 0),
            pg_table_size(c.oid), pg_indexes_size(c.oid), pg_total_relation_size(c.oid)))
        FROM pg_dist_local_group g JOIN pg_dist_placement p ON p.groupid = g.groupid
        JOIN pg_dist_shard s ON s.shardid = p.shardid
        JOIN pg_class logical ON logical.oid = s.logicalrelid
        JOIN pg_class c ON c.oid = to_regclass(shard_name(s.logicalrelid, s.shardid))
        WHERE c.relkind = 'r'
    )
)
"""
"""What a worker says of itself, as JSON. ``gid``: ``citus_GROUP_PROCESS_TRANSACTION_CONNECTION``, GROUP 0 for the coordinator."""

ASK = """
SELECT success, result FROM master_run_on_worker(ARRAY[%s::text], ARRAY[%s::integer], ARRAY[%s::text], false)
"""

ACTIVE = "SELECT transaction_number FROM get_all_active_transactions() WHERE initiator_node_identifier = 0"

COMMITTED = "SELECT gid FROM pg_dist_transaction WHERE gid = ANY(%s::text[])"

HEALTH = """
SELECT from_nodename || ':' || from_nodeport, to_nodename || ':' || to_nodeport
FROM citus_check_cluster_node_health() WHERE result IS NOT TRUE ORDER BY 1, 2
"""


class Shard(NamedTuple):
    """One shard of a partition: the partition, the first hash of the shard, its estimated rows, and its bytes."""

    partition: str
    first_hash: int
    rows: int
    table_bytes: int
    index_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker. ``name`` is host and port; ``problem`` says why it does not answer, and is empty if it does.

    ``in_doubt`` are the transactions of this database that are prepared there and that nobody is executing any more: true
    for those that the coordinator has committed, false for those that will be rolled back.
    """

    name: str
    active: bool
    takes_shards: bool
    problem: str = ""
    version: str = ""
    extension_version: str = ""
    standby: bool = False
    unsafe_settings: str = ""
    shards: Sequence[Shard] = ()
    in_doubt: Sequence[bool] = ()

    @property
    def total_bytes(self) -> int:
        """The bytes of its shards, with indexes."""
        return sum(shard.total_bytes for shard in self.shards)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The workers, and pairs of nodes of which the first cannot connect to the second."""

    extension_version: str
    workers: Sequence[Worker]
    disconnected: Sequence[tuple[str, str]] = ()

    @property
    def away(self) -> list[Worker]:
        """The workers that do not answer."""
        return [worker for worker in self.workers if worker.problem]

    @property
    def in_doubt(self) -> int:
        """The number of transactions that the coordinator has committed and that a worker has not applied yet."""
        return sum(sum(worker.in_doubt) for worker in self.workers)

    @property
    def shards(self) -> list[Shard]:
        """All shards of the workers that answer."""
        return [shard for worker in self.workers for shard in worker.shards]

    def uneven(self) -> list[str]:
        """Return a sentence for each worker that stores far more than others, or nothing though it may."""
        usable = [worker for worker in self.workers if worker.active and not worker.problem and worker.takes_shards]
        if empty := [f"{worker.name} has no shards yet" for worker in usable if not worker.shards]:
            return empty
        mean = sum(worker.total_bytes for worker in usable) / len(usable) if usable else 0.0
        return [
            f"{worker.name} has {worker.total_bytes / mean:.1f} times the bytes of the mean worker"
            for worker in usable
            if worker.total_bytes > max(MAX_UNEVENNESS * mean, MIN_UNEVEN_BYTES)
        ]


async def is_cluster(session: Session) -> bool:
    """Return whether the samples of this database are distributed over workers."""
    [[has_nodes]] = await session.rows(HAS_NODES)
    if not has_nodes:
        return False
    [[distributed]] = await session.rows(IS_DISTRIBUTED)
    return bool(distributed)


async def cluster_of(session: Session) -> Cluster | None:
    """Ask each worker, one after the other, outside of a transaction; ``None`` if the samples are not distributed.

    A worker that does not answer is part of the result. The workers are asked before the coordinator: a transaction that is
    prepared there and that nobody is executing afterwards is in doubt.
    """
    if not await is_cluster(session):
        return None
    await session.count(f"SET citus.node_connection_timeout = '{CONNECT_SECONDS}s'")
    [[extension]] = await session.rows("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
    nodes = await session.rows(NODES)
    answers = [await _ask(session, host, port) if active else "" for host, port, active, _ in nodes]
    prepared = [gid for answer in answers if isinstance(answer, dict) for gid in _gids(answer)]
    running = {str(number) for [number] in await session.rows(ACTIVE)} if prepared else set()
    committed = {gid for [gid] in await session.rows(COMMITTED, [prepared])} if prepared else set()

    def in_doubt(answer: Mapping[str, Any]) -> list[bool]:
        return [gid in committed for gid in _gids(answer) if gid.split("_")[3] not in running]

    workers = []
    for (host, port, active, takes_shards), answer in zip(nodes, answers, strict=True):
        name = f"{host}:{port}"
        if isinstance(answer, str):
            problem = answer or "it is disabled (citus_disable_node)"
            workers.append(Worker(name, active, takes_shards, problem))
            continue
        workers.append(
            Worker(
                name,
                active,
                takes_shards,
                version=answer["version"],
                extension_version=answer["extension"] or "",
                standby=answer["standby"],
                unsafe_settings=", ".join(f"{name} = {setting}" for name, setting in (answer["unsafe"] or {}).items()),
                shards=[_shard(values) for values in answer["shards"] or ()],
                in_doubt=in_doubt(answer),
            )
        )
    return Cluster(extension, workers)


async def disconnected_nodes(session: Session) -> list[tuple[str, str]]:
    """Return pairs of nodes of which the first cannot connect to the second; every node is asked about every other."""
    return [(first, second) for first, second in await session.rows(HEALTH)]


async def _ask(session: Session, host: str, port: int) -> dict[str, Any] | str:
    """Return what a worker says of itself, or why it does not."""
    try:
        [[success, result]] = await session.rows(ASK, [host, port, OF_WORKER])
    except TimedOut:
        return "it does not answer"
    except Rejected as error:
        return _first_line(str(error))
    if not success:
        return _first_line(result or "it does not answer")
    answer: dict[str, Any] = json.loads(result)
    return answer


def _gids(answer: Mapping[str, Any]) -> list[str]:
    return [gid for gid, _ in answer["prepared"] or ()]


def _shard(values: Sequence[Any]) -> Shard:
    partition, first_hash, rows, *sizes = values
    return Shard(partition, int(first_hash), int(rows), *map(int, sizes))


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def sizes_by_partition(shards: Iterable[Shard]) -> dict[str, tuple[int, int, int, int]]:
    """Return by partition the estimated rows of all its shards, and the bytes of tables, of indexes and in total."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for shard in shards:
        rows, table, index, total = found.get(shard.partition, (0, 0, 0, 0))
        found[shard.partition] = (
            rows + shard.rows,
            table + shard.table_bytes,
            index + shard.index_bytes,
            total + shard.total_bytes,
        )
    return found


def require_all_workers(cluster: Cluster) -> None:
    """Raise :class:`Unavailable`, which names them, if workers are away: a total without theirs would be too small."""
    if cluster.away:
        raise Unavailable("; ".join(f"worker {worker.name} is away: {worker.problem}" for worker in cluster.away))


def cluster_report(cluster: Cluster) -> dict[str, Any]:
    """Return the state of the workers as members of a JSON object; ``cluster_problems`` is ``None`` if there is none."""
    return {
        "workers": [
            {
                "worker": worker.name,
                "state": f"away: {worker.problem}" if worker.problem else "standby" if worker.standby else "answers",
                "server_version": worker.version or None,
                "citus_version": worker.extension_version or None,
                "shards": None if worker.problem else len(worker.shards),
                "total_bytes": None if worker.problem else worker.total_bytes,
                "unsafe_settings": worker.unsafe_settings,
                "transactions_in_doubt": None if worker.problem else len(worker.in_doubt),
            }
            for worker in cluster.workers
        ],
        "cluster_problems": "; ".join(problems(cluster)) or None,
    }


def problems(cluster: Cluster) -> list[str]:
    """Return what an operator has to do something about, a sentence each, the most urgent first."""
    found = [
        f"worker {worker.name} is away ({worker.problem}): nothing is written meanwhile" for worker in cluster.away
    ]
    if cluster.in_doubt:
        found.append(
            f"{cluster.in_doubt} committed transactions are in doubt: their samples are not visible yet, and hours wait for them"
        )
    found += [
        f"worker {worker.name} has Citus {worker.extension_version}, the coordinator {cluster.extension_version}"
        for worker in cluster.workers
        if not worker.problem and worker.extension_version != cluster.extension_version
    ]
    found += [f"{first} cannot connect to {second}" for first, second in cluster.disconnected]
    found += [f"worker {sentence}: SELECT citus_rebalance_start() evens it out" for sentence in cluster.uneven()]
    return found
