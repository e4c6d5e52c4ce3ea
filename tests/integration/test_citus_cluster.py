"""The cluster of the tests is one: its databases are independent, and its shards are spread over the workers."""

from __future__ import annotations

from tests.servers.citus import CitusCluster

DISTRIBUTE = """
DROP INDEX sample_default_message_id;
ALTER TABLE sample ADD PRIMARY KEY (message_id, timestamp, series_id);
SELECT create_distributed_table('sample', 'series_id');
"""
INSERT = "INSERT INTO sample SELECT now(), now(), gen_random_uuid(), 1, 1, n, 1, '', '' FROM generate_series(1, 100) n"


def test_databases_with_a_spread_store_are_independent(citus: CitusCluster) -> None:
    def spread(dsn: str) -> None:
        citus.execute(DISTRIBUTE, dsn)

    one, other = citus.dsn_with_schema(spread), citus.dsn_with_schema(spread)
    citus.execute(INSERT, one)
    assert citus.execute("SELECT count(*) FROM sample", one) == [(100,)]
    assert citus.execute("SELECT count(*) FROM sample", other) == [(0,)]
    shards = "SELECT nodeport, count(*) FROM citus_shards WHERE table_name = 'sample'::regclass GROUP BY 1 ORDER BY 1"
    assert citus.execute(shards, one) == sorted((worker.port, 4) for worker in citus.workers)
