"""Polling: runs the pollsters, signs their samples and puts them into the outbox.

A cycle ends when its samples are on disk. A pollster that raises, hangs or returns invalid objects affects no other.
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
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.agent.cycle import Cycle
from meter.agent.cycle import PluginContext
from meter.bus.batches import iter_publications
from meter.ceilometer_signature import BadSignature
from meter.daemon.locks import Lock
from meter.daemon.metrics import PollingMetrics
from meter.daemon.services import Slices
from meter.daemon.services import within
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.outgoing import Signer
from meter.plugins.registry import Decision
from meter.sample import Sample
from meter.signing_keys import Keyring

SPOOL_CHUNK_SAMPLES = 2000
"""Samples that are signed, encoded and written to disk in one transaction, about 4 MB: bounds the memory of a cycle."""


@dataclass(frozen=True, slots=True)
class CycleResult:
    """The result of one cycle: samples and distinct meters put into the outbox, and the pollsters that failed."""

    samples: int
    meters: int
    failed: tuple[str, ...]
    seconds: float


class Polling:
    """Runs polling cycles; :class:`meter.agent.scheduler.AlignedSchedule` says when.

    ``pollsters`` are active decisions of :mod:`meter.plugins.registry`. ``put`` stores publications and returns when
    they are on disk. ``after_cycle`` is called with the report of each cycle. ``interval_of`` returns the polling
    interval of a pollster in seconds by its name, which its samples carry. ``unit_name`` maps the name of a unit to the
    configured one.
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
        after_cycle: Callable[[CycleResult], object] = lambda _: None,
        interval_of: Callable[[str], float | None] = lambda _: None,
        unit_name: Callable[[str], str] | None = None,
    ) -> None:
        self.pollsters: tuple[Decision, ...] = ()
        self._context = context
        self._after_cycle = after_cycle
        self._put = put
        self._keys = keys
        self._source = source
        self._timeout = timeout_seconds
        self._batch_samples = batch_samples
        self._metrics = metrics
        self._interval_of = interval_of
        self._unit_name = unit_name
        self._failures: dict[str, str] = {}
        self._in_progress: dict[str, Deferred[Any]] = {}
        self._cycle_lock = Lock()

    async def cycle(self, pollsters: Sequence[Decision] | None = None) -> CycleResult:
        """Run all pollsters once, or those given, concurrently; returns when the samples are on disk."""
        async with self._cycle_lock:
            report = await self._cycle(self.pollsters if pollsters is None else pollsters, self._context)
        self._log.info(
            "polled {samples} samples of {meters} meters in {seconds:.3f} s{failed}",
            samples=report.samples,
            meters=report.meters,
            seconds=report.seconds,
            failed=f"; failed: {', '.join(report.failed)}" if report.failed else "",
        )
        self._metrics.cycle_ended()
        self._after_cycle(report)
        return report

    async def poll_off_schedule(self, interface: Any, providers: Mapping[Any, Any]) -> CycleResult:
        """Run the pollsters that provide ``interface`` now, with ``providers`` replacing some; their samples are spooled."""
        async with self._cycle_lock:
            pollsters = [each for each in self.pollsters if interface.providedBy(each.plugin)]
            return await self._cycle(pollsters, self._context.with_providers(providers))

    async def _cycle(self, pollsters: Sequence[Decision], context: PluginContext) -> CycleResult:
        cycle = Cycle(context)
        began = context.clock.seconds()
        spooling_lock = Lock()
        spooled = await gatherResults(
            [Deferred.fromCoroutine(self._poll(each, cycle, spooling_lock)) for each in pollsters], consumeErrors=True
        )
        meters = sum(spooled, Counter[str]())
        failed = tuple(each.name for each in pollsters if each.name in self._failures)
        return CycleResult(meters.total(), len(meters), failed, context.clock.seconds() - began)

    async def poll_now(self, name: str) -> list[Sample]:
        """Run the pollster ``name`` now and return its samples, which are not spooled."""
        for each in self.pollsters:
            if each.name == name:
                found = await each.plugin.poll(Cycle(self._context, trial=True))
                samples = await SampleStream(each, found, self._context.clock, self._timeout).take(sys.maxsize)
                name_of = self._unit_name
                return [replace(one, unit=name_of(one.unit)) for one in samples] if name_of else samples
        known = ", ".join(sorted(each.name for each in self.pollsters)) or "none"
        raise LookupError(f"no pollster {name!r} is active here; active are: {known}")

    async def _poll(self, pollster: Decision, cycle: Cycle, spooling_lock: Lock) -> Counter[str]:
        """Run a pollster; return how many of its samples are on disk, by meter.

        The poll is counted. If it fails the reason is logged once, and the samples that it has made are spooled.
        """
        clock = self._context.clock
        outcome, failure = "ok", ""
        spooled: Counter[str] = Counter()
        stream = None
        began = clock.seconds()
        try:
            if pollster.name in self._in_progress:
                raise DeferredTimeout(f"the poll of an earlier cycle is still running after {self._timeout} s")
            found = await within(clock, self._timeout, self._no_overlap(pollster, cycle))
            stream = SampleStream(pollster, found, clock, self._timeout, clock.seconds() - began)
            # Samples are made, signed and written in chunks: memory is bounded, and other pollsters do not wait.
            async with spooling_lock:
                while samples := await stream.take(SPOOL_CHUNK_SAMPLES):
                    if await self._sign_and_spool(samples, self._interval_of(pollster.name)):
                        spooled.update(sample.name for sample in samples)
        except Unavailable as error:
            outcome, failure = "unavailable", str(error)
        except DeferredTimeout:
            outcome, failure = "timeout", f"no result within {self._timeout} s"
        except Exception as error:
            outcome, failure = "error", f"{type(error).__name__}: {error}"
        seconds, count = (stream.seconds, stream.count) if stream is not None else (clock.seconds() - began, 0)
        self._metrics.polled(pollster.name, outcome, seconds, count)
        self._log_state_change(pollster.name, failure)
        return spooled

    def _no_overlap(self, pollster: Decision, cycle: Cycle) -> Deferred[Any]:
        """Poll, and mark the pollster as busy until the poll has ended, even after its timeout."""
        name = pollster.name

        async def poll() -> Any:
            return await pollster.plugin.poll(cycle)  # any awaitable

        work = Deferred.fromCoroutine(poll())
        if work.called:
            return work
        self._in_progress[name] = work

        def ended(outcome: Any) -> Any:
            self._in_progress.pop(name, None)
            return outcome

        return work.addBoth(ended)

    def _log_state_change(self, name: str, failure: str) -> None:
        """Log when a pollster begins to fail, fails for another reason, or works again."""
        if failure == self._failures.get(name, ""):
            return
        if failure:
            self._failures[name] = failure
            self._log.warn("pollster {name}: {failure}", name=name, failure=failure)
        else:
            del self._failures[name]
            self._log.info("pollster {name} works again", name=name)

    async def _sign_and_spool(self, samples: Sequence[Sample], interval_seconds: float | None) -> bool:
        """Sign and spool; return whether the samples are on disk. Losses are logged with their time range.

        A sample that cannot be signed is skipped; the others are spooled.
        """
        messages = []
        signer = Signer(self._keys, self._source, interval_seconds=interval_seconds, unit_name=self._unit_name)
        slices = Slices(self._context.clock)
        for sample in samples:
            if slices.over:
                await slices.pause()
            try:
                messages.append(signer.message(sample))
            except BadSignature as error:
                self._log.error("LOST a sample of {meter}: {error}", meter=sample.name, error=error)
        publications = []
        for publication in iter_publications(messages, batch_samples=self._batch_samples):
            publications.append(publication)
            if slices.over:
                await slices.pause()
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
    """Takes samples from the iterable that a pollster has returned, such as a list or a generator.

    ``seconds`` is the time that the pollster has used, starting with ``seconds`` for the poll itself, and limited to
    ``limit_seconds``. ``count`` is the number of samples taken.
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

    async def take(self, limit: int) -> list[Sample]:
        """Return the next samples, at most ``limit``; an empty list at the end."""
        takes = self._pollster.takes if self._pollster.meters_off else None
        taken: list[Sample] = []
        end = self._clock.seconds() - self.seconds + self._limit_seconds
        began = self._clock.seconds()
        slices = Slices(self._clock)
        try:
            for sample in self._rest:
                if not isinstance(sample, Sample):
                    raise TypeError(f"poll() must return Samples only, not {sample!r:.80}")
                if takes is None or takes(sample.name):
                    taken.append(sample)
                    if len(taken) >= limit:
                        break
                if slices.over:
                    if self._clock.seconds() > end:
                        raise DeferredTimeout
                    await slices.pause()
        finally:
            self.seconds += self._clock.seconds() - began
            self.count += len(taken)
        return taken
