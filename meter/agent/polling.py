"""Polling: asks every pollster for its samples at the same interval, signs them and puts them into the outbox.

A cycle counts as done when its samples are on disk. A pollster that raises, hangs or returns rubbish hurts itself only.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredLock
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.agent.cycle import Cycle
from meter.agent.cycle import PluginContext
from meter.bus.batches import batch_publications
from meter.daemon.metrics import PollingMetrics
from meter.daemon.services import Slices
from meter.daemon.services import within
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.message import Signer
from meter.plugins.registry import Decision
from meter.sample import Sample
from meter.signature import BadSignature
from meter.signature import Keyring

MOST_AT_ONCE = 2000
"""Samples that are signed, encoded and written to disk in one go: some 4 MB."""


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What one cycle brought: samples and distinct meters put into the outbox, and pollsters that failed."""

    samples: int
    meters: int
    failed: tuple[str, ...]
    seconds: float


class Polling:
    """Runs one cycle when told to; :class:`meter.daemon.services.Periodic` says when.

    ``pollsters`` are active decisions of :mod:`meter.plugins.registry`. ``put`` takes publications and returns when they are
    on disk. ``after_cycle`` is called with the report of each cycle. ``interval_of`` returns how often a pollster polls,
    in seconds, by its name: all samples tell it. ``unit_name`` returns the name that a unit goes by here.
    """

    _log = Logger()

    def __init__(
        self,
        context: PluginContext,
        put: Callable[[Sequence[Publication]], Awaitable[None]],
        keys: Keyring,
        *,
        source: str,
        timeout_seconds: float,
        batch_samples: int,
        metrics: PollingMetrics,
        after_cycle: Callable[[CycleReport], object] = lambda _: None,
        interval_of: Callable[[str], float | None] = lambda _: None,
        unit_name: Callable[[str], str] | None = None,
    ) -> None:
        self.pollsters: tuple[Decision, ...] = ()
        self._here = context
        self._after_cycle = after_cycle
        self._put = put
        self._keys = keys
        self._source = source
        self._timeout = timeout_seconds
        self._batch = batch_samples
        self._metrics = metrics
        self._interval_of = interval_of
        self._unit_name = unit_name
        self._troubles: dict[str, str] = {}
        self._under_way: dict[str, Deferred[Any]] = {}
        self._turn = DeferredLock()

    async def cycle(self, pollsters: Sequence[Decision] | None = None) -> CycleReport:
        """Poll everyone once, or those given, at the same time; returns when the samples are on disk."""
        async with self._turn:
            report = await self._cycle(self.pollsters if pollsters is None else pollsters, self._here)
        self._log.info(
            "polled {samples} samples of {meters} meters in {seconds:.3f} s{failed}",
            samples=report.samples,
            meters=report.meters,
            seconds=report.seconds,
            failed=f"; without {', '.join(report.failed)}" if report.failed else "",
        )
        self._metrics.cycle_ended()
        self._after_cycle(report)
        return report

    async def poll_off_schedule(self, interface: Any, providers: Mapping[Any, Any]) -> CycleReport:
        """Poll those that provide ``interface``, with other ``providers`` in place of some; what they give is kept."""
        async with self._turn:
            pollsters = [each for each in self.pollsters if interface.providedBy(each.plugin)]
            return await self._cycle(pollsters, self._here.with_providers(providers))

    async def _cycle(self, pollsters: Sequence[Decision], context: PluginContext) -> CycleReport:
        cycle = Cycle(context)
        began = context.clock.seconds()
        one_at_a_time = DeferredLock()
        kept = await gatherResults(
            [Deferred.fromCoroutine(self._poll(each, cycle, one_at_a_time)) for each in pollsters], consumeErrors=True
        )
        meters = sum(kept, Counter[str]())
        failed = tuple(each.name for each in pollsters if each.name in self._troubles)
        return CycleReport(meters.total(), len(meters), failed, context.clock.seconds() - began)

    async def poll_now(self, name: str) -> list[Sample]:
        """Poll the pollster called ``name`` out of turn and return its samples without keeping them."""
        for each in self.pollsters:
            if each.name == name:
                found = await each.plugin.poll(Cycle(self._here, trial=True))
                samples = await SampleStream(each, found, self._here.clock, self._timeout).some(sys.maxsize)
                name_of = self._unit_name
                return [replace(one, unit=name_of(one.unit)) for one in samples] if name_of else samples
        known = ", ".join(sorted(each.name for each in self.pollsters)) or "none"
        raise LookupError(f"no pollster {name!r} is active here; active are: {known}")

    async def _poll(self, pollster: Decision, cycle: Cycle, one_at_a_time: DeferredLock) -> Counter[str]:
        """Return how many samples of each meter a pollster brought to disk.

        The poll is counted; where it failed the reason is logged once, and what it gave before is kept.
        """
        clock = self._here.clock
        outcome, trouble = "ok", ""
        kept: Counter[str] = Counter()
        drawing = None
        began = clock.seconds()
        try:
            if pollster.name in self._under_way:
                raise DeferredTimeout(f"still busy with an earlier cycle after {self._timeout} s")
            found = await within(clock, self._timeout, self._tracked(pollster, cycle))
            drawing = SampleStream(pollster, found, clock, self._timeout, clock.seconds() - began)
            # Samples are made, signed and written some at a time: memory is bounded, and nobody waits for one that hangs.
            async with one_at_a_time:
                while samples := await drawing.some(MOST_AT_ONCE):
                    if await self._keep(samples, self._interval_of(pollster.name)):
                        kept.update(sample.name for sample in samples)
        except Unavailable as error:
            outcome, trouble = "unavailable", str(error)
        except DeferredTimeout:
            outcome, trouble = "timeout", f"gave no answer within {self._timeout} s"
        except Exception as error:
            outcome, trouble = "error", f"{type(error).__name__}: {error}"
        seconds, count = (drawing.seconds, drawing.count) if drawing is not None else (clock.seconds() - began, 0)
        self._metrics.polled(pollster.name, outcome, seconds, count)
        self._log_state_change(pollster.name, trouble)
        return kept

    def _tracked(self, pollster: Decision, cycle: Cycle) -> Deferred[Any]:
        """A pollster that ignores being given up is not asked again until it has come back."""
        name = pollster.name

        async def poll() -> Any:
            return await pollster.plugin.poll(cycle)  # whatever can be awaited

        work = Deferred.fromCoroutine(poll())
        if work.called:
            return work
        self._under_way[name] = work

        def gone(outcome: Any) -> Any:
            self._under_way.pop(name, None)
            return outcome

        return work.addBoth(gone)

    def _log_state_change(self, name: str, trouble: str) -> None:
        """One line when a pollster begins to fail, or fails otherwise, and one when it works again."""
        if trouble == self._troubles.get(name, ""):
            return
        if trouble:
            self._troubles[name] = trouble
            self._log.warn("pollster {name}: {trouble}", name=name, trouble=trouble)
        else:
            del self._troubles[name]
            self._log.info("pollster {name} works again", name=name)

    async def _keep(self, samples: Sequence[Sample], interval_seconds: float | None) -> bool:
        """Sign and spool; return whether the samples are safe. What is lost is logged with its range of time.

        A sample that cannot be signed is left out, and its neighbours are kept.
        """
        batches: dict[tuple[str, str], list[dict[str, Any]]] = {}
        signer = Signer(self._keys, self._source, interval_seconds=interval_seconds, unit_name=self._unit_name)
        slices = Slices(self._here.clock)
        for sample in samples:
            if slices.over:
                await slices.pause()
            try:
                message = signer.message(sample)
                batches.setdefault((self._keys.key_for(sample.timestamp).id, sample.name), []).append(message)
            except BadSignature as error:
                self._log.error("LOST a sample of {meter}: {error}", meter=sample.name, error=error)
        publications = []
        for (key_id, _), messages in batches.items():
            for first in range(0, len(messages), self._batch):
                if slices.over:
                    await slices.pause()
                publications += batch_publications(
                    messages[first : first + self._batch], key_id, batch_samples=self._batch
                )
        if not publications:
            return True
        try:
            await self._put(publications)
        except Unavailable as error:
            times = [sample.timestamp for sample in samples]
            self._log.error(
                "LOST {samples} samples, measured from {first} to {last}: {error}",
                samples=len(samples),
                first=min(times).isoformat(),
                last=max(times).isoformat(),
                error=error,
            )
            return False
        return True


class SampleStream:
    """Draws samples from what a pollster returned: a list, or a generator that makes each as it is drawn.

    ``seconds`` is the time that the pollster has taken, which began with ``seconds`` and may come to ``limit_seconds``;
    ``count`` is how many samples there were.
    """

    def __init__(
        self, pollster: Decision, found: Any, clock: IReactorTime, limit_seconds: float, seconds: float = 0.0
    ) -> None:
        if not isinstance(found, Iterable):
            raise TypeError(f"poll() must return an iterable of Sample, not {found!r:.80}")
        self._pollster = pollster
        self._rest = iter(found)
        self._clock = clock
        self._limit_seconds = limit_seconds
        self.seconds = seconds
        self.count = 0

    async def some(self, most: int) -> list[Sample]:
        """Return the next samples, ``most`` at most; none when there are no more."""
        takes = self._pollster.takes if self._pollster.meters_off else None
        drawn: list[Sample] = []
        end = self._clock.seconds() - self.seconds + self._limit_seconds
        began = self._clock.seconds()
        slices = Slices(self._clock)
        try:
            for sample in self._rest:
                if not isinstance(sample, Sample):
                    raise TypeError(f"poll() must return Samples only, not {sample!r:.80}")
                if takes is None or takes(sample.name):
                    drawn.append(sample)
                    if len(drawn) >= most:
                        break
                if slices.over:
                    if self._clock.seconds() > end:
                        raise DeferredTimeout
                    await slices.pause()
        finally:
            self.seconds += self._clock.seconds() - began
            self.count += len(drawn)
        return drawn
