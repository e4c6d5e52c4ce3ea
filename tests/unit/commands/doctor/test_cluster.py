"""What ``meter-doctor`` and ``meter-db status`` say of the workers of a cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import datetime

import pytest

from meter.commands.doctor.cluster import cluster_findings
from meter.store import Cluster
from meter.store import UnfinishedSpread
from meter.store import Worker
from meter.store.cluster.workers import Shard
from meter.store.cluster.workers import problems
from meter.store.cluster.workers import sizes_by_partition

MEGABYTE = 1_000_000


def shards(*megabytes):
    return [Shard("sample_default", n, 10, each * MEGABYTE, 0, each * MEGABYTE) for n, each in enumerate(megabytes)]


FIRST = Worker("db1:5432", True, True, version="15.4", extension_version="12.1-1", shards=shards(100, 200))
SECOND = replace(FIRST, name="db2:5432")
BEGUN = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
AWAY = Worker("db2:5432", True, True, "connection refused")


def test_store_on_one_server_is_healthy():
    [found] = cluster_findings(None)
    assert (found.level, found.text) == ("ok", "all samples are on this server")


def test_healthy_cluster_is_one_line():
    [found] = cluster_findings(Cluster("12.1-1", [FIRST, SECOND]))
    assert (found.level, found.text) == ("ok", "2 workers answer and have 4 shards, 600.0 MB; nothing is in doubt")
    assert problems(Cluster("12.1-1", [FIRST, SECOND])) == []


@pytest.mark.parametrize(
    ("second", "level", "text"),
    [
        (AWAY, "fault", "worker db2:5432 is away"),
        (
            replace(SECOND, extension_version="12.0-1"),
            "fault",
            "worker db2:5432 has Citus 12.0-1, the coordinator 12.1-1",
        ),
        (replace(SECOND, in_doubt=[True, False]), "warning", "1 committed transactions are in doubt"),
        (replace(SECOND, shards=shards(2000)), "warning", "worker db2:5432 has 1.7 times the bytes"),
        (replace(SECOND, shards=[]), "warning", "worker db2:5432 has no shards yet"),
    ],
)
def test_trouble_of_a_worker_is_named_by_both_commands(second, level, text):
    cluster = Cluster("12.1-1", [FIRST, second])
    [found] = cluster_findings(cluster)
    assert (found.level, found.text.startswith(text)) == (level, True)
    assert found.advice
    [problem] = problems(cluster)
    assert problem.startswith(text)


def test_unsafe_settings_and_missing_connections_are_named():
    unsafe = replace(SECOND, unsafe_settings="fsync = off")
    found = list(cluster_findings(Cluster("12.1-1", [FIRST, unsafe], [("db1:5432", "db2:5432")])))
    assert [each.level for each in found] == ["fault", "warning"]
    assert "fsync = off" in found[0].text
    assert found[1].text.startswith("db1:5432 cannot connect to db2:5432")


def test_small_or_excluded_workers_are_not_uneven():
    small = Cluster("12.1-1", [replace(FIRST, shards=shards(0)), replace(SECOND, shards=shards(1, 20, 30))])
    assert small.uneven() == []
    assert Cluster("12.1-1", [FIRST, replace(SECOND, takes_shards=False, shards=[])]).uneven() == []


def test_sizes_of_the_shards_of_a_partition_are_added():
    assert sizes_by_partition(shards(1, 2)) == {"sample_default": (20, 3 * MEGABYTE, 0, 3 * MEGABYTE)}


def test_spread_that_nobody_goes_on_with_is_a_warning_before_and_after_samples_are_divided():
    stopped = UnfinishedSpread(BEGUN, "0 of 3 partitions have a key with the series", at_work=False)
    [found] = cluster_findings(None, stopped)
    assert (found.level, found.text) == (
        "warning",
        "meter-db spread is not done: begun 2026-11-28 09:30Z; 0 of 3 partitions have a key with the series; nobody is at work",
    )
    assert found.advice == "call meter-db spread again, it goes on from here"
    assert [each.level for each in cluster_findings(Cluster("12.1-1", [FIRST, SECOND]), stopped)] == ["warning", "ok"]


def test_spread_at_work_is_shown_and_nothing_is_to_be_done():
    [found] = cluster_findings(None, UnfinishedSpread(BEGUN, "all partitions have their key", at_work=True))
    assert (found.level, found.advice) == ("ok", "")
    assert found.text.endswith("; all partitions have their key; a process is at work")
