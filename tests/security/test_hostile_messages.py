"""Hostile messages on the bus, in every shape, neither harm a collector nor a good sample. ``make chaos`` sends more of them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from tests.chaos.hostile_messages import HostileMessages
from tests.chaos.hostile_messages import run

MESSAGES = 500
SEED = 15


def test_hostile_messages_are_dead_lettered_and_the_good_ones_among_them_stored_once(
    rabbitmq: Any, postgresql: Any, tmp_path: Path
) -> None:
    report = run(MESSAGES, SEED, rabbitmq, postgresql, tmp_path)
    assert not report.problems, f"seed {SEED}: {report}"
    assert {"undecodable", "invalid", "unverified", "too-complex", "misunderstood"} <= set(report.kinds)


def test_a_seed_makes_the_same_messages() -> None:
    first, second = (list(islice(HostileMessages(SEED), 60)) for _ in range(2))
    assert [(each.exchange, each.routing_key, each.dead, each.properties) for each in first] == [
        (each.exchange, each.routing_key, each.dead, each.properties) for each in second
    ]
