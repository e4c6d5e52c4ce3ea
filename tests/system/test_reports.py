"""Cycle reports and heartbeats of real daemons reach the tables of the ledger, over RabbitMQ and within one process."""

from __future__ import annotations

from tests.system.daemons import SECRET
from tests.system.daemons import STOPPED
from tests.system.daemons import until

SINGLE = f"""
[meter]
state_dir = "{{directory}}/s"
[signing]
key = "{SECRET}"
[status]
listen = "tcp:{{status_port}}:interface=127.0.0.1"
[api]
listen = "tcp:{{api_port}}:interface=127.0.0.1"
"""
COMPUTE = '[compute]\nlibvirt_uri = "test:///default"\n[polling]\ninterval_seconds = 1.0\n'
CYCLES = 'meter_reports_total{kind="cycle",outcome="applied"}'
HEARTBEATS = 'meter_reports_total{kind="heartbeat",outcome="applied"}'


def test_reports_of_an_agent_and_heartbeats_of_all_daemons_are_stored(furnished, postgresql):
    collector = furnished.daemon("meter-collector").start().until_ready()
    compute = furnished.daemon("meter-compute", COMPUTE).start().until_ready()

    until(lambda: collector.metric(CYCLES) >= 3, "the reports of three cycles")
    until(lambda: collector.metric(HEARTBEATS) >= 2, "a heartbeat of each daemon")
    assert compute.stop() in STOPPED
    query = "SELECT a.name LIKE 'meter-compute@%', b.stopped FROM agent a JOIN agent_boot b ON b.agent_id = a.id"
    until(lambda: postgresql.execute(query, furnished.store) == [(True, True)], "the report that the agent stops")

    [(cycles,)] = postgresql.execute("SELECT sum(cycles)::int FROM cycle_run", furnished.store)
    assert cycles >= 3
    assert postgresql.execute("SELECT DISTINCT resource FROM metered_resource", furnished.store)
    assert collector.metric("meter_dead_letters_total") == 0
    assert collector.stop() in STOPPED
    assert "Traceback" not in collector.log


def test_single_process_stores_its_own_reports(house):
    meter = house.daemon("meter", COMPUTE, base=SINGLE).start().until_ready()

    until(lambda: meter.metric(CYCLES) >= 2, "the reports of two cycles")
    until(lambda: meter.metric(HEARTBEATS) >= 1, "a heartbeat")
    assert meter.metric("meter_dead_letters_total") == 0
    assert meter.stop() in STOPPED
    assert "Traceback" not in meter.log
