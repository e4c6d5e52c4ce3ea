"""What the check does with each block of the page: it executes it, or it has a reason not to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from tests.install.page import Block

EXECUTED = "sh"
"""The language of blocks that are executed. All others need an entry in :data:`NOT_EXECUTED`."""

NOT_EXECUTED: Mapping[str, str] = {
    "compute1, compute2, …   meter-compute": "a picture of the region",
    "[oslo_messaging_notifications]": "a part of nova.conf: tests/integration/test_broker_permissions.py publishes as Nova does",
}
"""Blocks, by their first line, that are not executed, and why."""

ONLINE = re.compile(r"apt-get|/pip\b")
"""Commands that need package archives. Blocks with them run in the network of this machine, all others in that of the region."""

REGION = ("broker", "db", "control", "api", "compute1")

SINGLE = "host1"


@dataclass(frozen=True, slots=True)
class PlannedBlock:
    """A block, and the reason why it is not executed, if it is not."""

    block: Block
    reason: str = ""

    @property
    def online(self) -> bool:
        """Whether the block downloads packages."""
        return bool(ONLINE.search(self.block.text))

    @property
    def shared(self) -> bool:
        """Whether several hosts begin with the result of the block: it is executed once for them."""
        return len(self.block.hosts) > 1


def planned(blocks: Sequence[Block]) -> Sequence[PlannedBlock]:
    """Return the plan for the blocks; ``ValueError`` for a block that it has nothing for."""
    return tuple(_planned(block) for block in blocks)


def problems(blocks: Sequence[Block]) -> Iterator[str]:
    """Yield what is wrong with the page or the plan."""
    for block in blocks:
        try:
            _planned(block)
        except ValueError as error:
            yield str(error)
    for title in NOT_EXECUTED.keys() - {block.title for block in blocks}:
        yield f"no block begins with {title!r}"


def _planned(block: Block) -> PlannedBlock:
    if reason := NOT_EXECUTED.get(block.title):
        return PlannedBlock(block, reason)
    if block.language != EXECUTED:
        raise ValueError(
            f"{block.place}: a block of the language {block.language} that nothing says why it is not executed"
        )
    if not block.hosts:
        raise ValueError(f"{block.place}: the paragraph before the block names no host")
    if unknown := set(block.hosts) - {SINGLE, *REGION}:
        raise ValueError(f"{block.place}: there is no host {', '.join(sorted(unknown))}")
    return PlannedBlock(block)
