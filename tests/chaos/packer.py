"""A packer of everything, even of samples that have just been stored, again and again until it is killed: ``packer.py DSN``."""

from __future__ import annotations

from meter.store.packing.packer import pack_everything
from meter.store.postgres.pool import Session
from tests.chaos.repeated import Pause
from tests.chaos.repeated import run_until_killed

GROUP_SAMPLES = 500
"""Small, so that there are many transactions to be killed in."""


async def pack(session: Session, pause: Pause) -> None:
    await pack_everything(session, pause, max_group_samples=GROUP_SAMPLES)
    await pause()


if __name__ == "__main__":
    run_until_killed(pack, "packer")
