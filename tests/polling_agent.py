"""An agent that runs real polling cycles with the providers of a test, and returns their samples."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from meter.agent.cycle import PluginContext
from meter.agent.polling import CycleResult
from meter.agent.polling import Polling
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import metrics_registry
from meter.interfaces import IDomainPollster
from meter.interfaces import Publication
from meter.message import read_cast
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision
from meter.sample import Sample
from meter.signing_keys import keyring

KEYS = keyring(["secret"])


class PollingAgent:
    """Runs ``pollsters`` by :class:`meter.agent.polling.Polling`; ``samples`` has all that it has spooled."""

    def __init__(self, pollsters: Sequence[Any], context: PluginContext, interval_seconds: float | None = None) -> None:
        self.samples: list[Sample] = []
        self._new: list[Sample] = []
        self._polling = Polling(
            context,
            self._put,
            KEYS,
            source="test",
            timeout_seconds=60,
            batch_samples=100,
            metrics=PollingMetrics(metrics_registry("test")),
            interval_of=lambda _: interval_seconds,
        )
        self._polling.pollsters = tuple(
            Decision(kind=COMPUTE, name=each.name, origin="test", state="active", plugin=each) for each in pollsters
        )

    async def cycle(self, *names: str) -> list[Sample]:
        """Run one cycle, of all pollsters or of those with these names; return its samples."""
        pollsters = [each for each in self._polling.pollsters if not names or each.name in names]
        return self._taken(await self._polling.cycle(pollsters))

    async def poll_domain(self, providers: Mapping[Any, Any]) -> list[Sample]:
        """Run the pollsters of domains with other ``providers``, as for a lifecycle event; return their samples."""
        return self._taken(await self._polling.poll_off_schedule(IDomainPollster, providers))

    async def poll_now(self, name: str) -> list[Sample]:
        """Run the pollster ``name`` in a trial cycle; return its samples."""
        return await self._polling.poll_now(name)

    def _taken(self, report: CycleResult) -> list[Sample]:
        assert report.failed == ()
        new, self._new = self._new, []
        assert len(new) == report.samples
        self.samples += new
        return new

    async def _put(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            for message in read_cast(publication.body, KEYS):
                self._new.append(
                    Sample(
                        name=message.name,
                        type=message.type,
                        unit=message.unit,
                        volume=message.volume,
                        resource_id=message.resource_id,
                        timestamp=message.timestamp,
                        user_id=message.user_id,
                        project_id=message.project_id,
                        resource_metadata=message.metadata,
                    )
                )
