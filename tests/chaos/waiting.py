"""What of a site still waits: in the agent's spool, in a queue, or delivered to a collector that has not acknowledged it.

A sample that waits is not lost, however long a busy machine takes: what was sent is compared with what is stored when nothing waits any
more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from meter.bus.queue_names import CONSUMED_QUEUES
from tests.chaos.site import NeverCame
from tests.chaos.site import Site

STUCK_SECONDS = 600.0
"""If nothing comes for so long while messages wait, something is wrong, and what is lost cannot be told."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Messages in the agent's spool, and in the queues, of which collectors have some and have not acknowledged them."""

    spooled: int = 0
    ready: dict[str, int] = field(default_factory=dict)
    unacknowledged: dict[str, int] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """All of them."""
        return self.spooled + sum(self.ready.values()) + sum(self.unacknowledged.values())

    def __str__(self) -> str:
        parts = [f"{self.spooled} messages in the agent's spool"] if self.spooled else []
        parts += [f"{count} in {queue}" for queue, count in self.ready.items() if count]
        parts += [f"{count} of {queue} unacknowledged" for queue, count in self.unacknowledged.items() if count]
        return ", ".join(parts) or "nothing waits"


def waiting(site: Site) -> Waiting:
    """Return what waits. What leaves the spool meanwhile is in a queue, and what leaves a queue is stored: whoever looks afterwards finds it."""
    spooled = int(site.agent.metric("meter_spool_messages"))
    vhost = site.url.rpartition("/")[2]
    listed = _any_node(site.rabbitmq).ctl(
        "list_queues", "-p", vhost, "name", "messages_ready", "messages_unacknowledged", "--no-table-headers"
    )
    counts = [line.split() for line in listed.splitlines()]
    return Waiting(
        spooled,
        {queue: int(ready) for queue, ready, _ in counts if queue in CONSUMED_QUEUES},
        {queue: int(unacknowledged) for queue, _, unacknowledged in counts if queue in CONSUMED_QUEUES},
    )


class Patience:
    """How long to wait for what was sent: ``seconds`` at least, and then as long as anything waits on its way."""

    def __init__(self, site: Site, seconds: float) -> None:
        self._site = site
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Begin anew, because something has come."""
        self._since = time.monotonic()

    def ended(self) -> bool:
        """Return whether nothing can come any more; :class:`NeverCame` if messages wait and nobody takes them."""
        waited = time.monotonic() - self._since
        if waited < self._seconds:
            return False
        still = waiting(self._site)
        if still.messages and waited > STUCK_SECONDS:
            raise NeverCame(f"nothing has come for {waited:.0f} s, but this waits: {still}")
        return not still.messages

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for ``condition``; :class:`NeverCame` if it is not met when nothing can come any more."""
        while not condition():
            if self.ended() and not condition():
                raise NeverCame(f"nothing waits any more, and there is no sign of {what}")
            time.sleep(0.1)


def _any_node(broker: Any) -> Any:
    """Return the broker, or the first node of a cluster."""
    return getattr(broker, "nodes", [broker])[0]
