"""Several collectors consume one queue into one store."""

from __future__ import annotations

from meter.message_ids import new_message_id
from tests.system.daemons import until
from tests.system.test_spine import cast_bodies
from tests.system.test_spine import publish
from tests.system.test_spine import sample

SAMPLES = 2_000
TAKEN = "meter_collected_samples_total"


def test_two_collectors_store_each_sample_once(furnished, postgresql):
    collectors = [furnished.daemon("meter-collector").start() for _ in range(2)]
    for each in collectors:
        each.until_ready()
    ids = [new_message_id() for _ in range(SAMPLES)]
    bodies = cast_bodies(
        [sample(n + 1, message_id=id, resource_id=f"lamp {n % 50}") for n, id in enumerate(ids)], batch_samples=20
    )

    publish(furnished.bus, [*bodies, *bodies[::2]])

    def counted(outcome: str) -> float:
        return sum(each.metric(f'{TAKEN}{{outcome="{outcome}"}}') for each in collectors)

    until(lambda: counted("stored") + counted("duplicate") == SAMPLES * 3 // 2, "all samples to be counted")
    assert (counted("stored"), counted("duplicate")) == (SAMPLES, SAMPLES // 2)
    assert all(each.metric(f'{TAKEN}{{outcome="stored"}}') for each in collectors)
    assert sorted(id for [id] in postgresql.execute("SELECT message_id::text FROM sample", furnished.store)) == sorted(
        ids
    )
    assert postgresql.execute("SELECT count(*) FROM resource", furnished.store) == [(50,)]
