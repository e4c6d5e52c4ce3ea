"""Polling: asks every pollster for its samples at the same interval, signs them and puts them into the outbox.

A cycle counts as done when its samples are on disk. A pollster that raises, hangs or returns rubbish hurts itself only.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredLock
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults
from twisted.logger import Logger

from meter.casting import casts
from meter.cycle import Cycle
from meter.cycle import Surroundings
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.message import Signer
from meter.metrics import PollingMetrics
from meter.registry import Decision
from meter.sample import Sample
from meter.services import Slices
from meter.services import within
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
    """Runs one cycle when told to; :class:`meter.services.Periodic` says when.

    ``pollsters`` are active decisions of :mod:`meter.registry`. ``put`` takes publications and returns when they are
    on disk. ``after_cycle`` is called with the report of each cycle.
    """

    _log = Logger()

    def __init__(
        self,
        here: Surroundings,
        put: Callable[[Sequence[Publication]], Awaitable[None]],
        keys: Keyring,
        *,
        source: str,
        timeout_seconds: float,
        batch_samples: int,
        metrics: PollingMetrics,
        after_cycle: Callable[[CycleReport], object] = lambda _: None,
    ) -> None:
        self.pollsters: tuple[Decision, ...] = ()
        self._here = here
        self._after_cycle = after_cycle
        self._put = put
        self._keys = keys
        self._source = source
        self._timeout = timeout_seconds
        self._batch = batch_samples
        self._metrics = metrics
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

    async def out_of_turn(self, interface: Any, providers: Mapping[Any, Any]) -> CycleReport:
        """Poll those that provide ``interface``, with other ``providers`` in place of some; what they give is kept."""
        async with self._turn:
            pollsters = [each for each in self.pollsters if interface.providedBy(each.plugin)]
            return await self._cycle(pollsters, self._here.with_providers(providers))

    async def _cycle(self, pollsters: Sequence[Decision], here: Surroundings) -> CycleReport:
        cycle = Cycle(here)
        began = here.clock.seconds()
        results = await gatherResults(
            [Deferred.fromCoroutine(self._poll(each, cycle)) for each in pollsters], consumeErrors=True
        )
        failed = tuple(each.name for each, result in zip(pollsters, results, strict=True) if result is None)
        samples = 0
        meters: set[str] = set()
        for result in results:
            # A pollster after another, and in parts: what waits for the disk is bounded.
            found = result or []
            for first in range(0, len(found), MOST_AT_ONCE):
                part = found[first : first + MOST_AT_ONCE]
                if await self._keep(part):
                    samples += len(part)
                    meters.update(sample.name for sample in part)
        return CycleReport(samples, len(meters), failed, here.clock.seconds() - began)

    async def poll_now(self, name: str) -> list[Sample]:
        """Poll the pollster called ``name`` out of turn and return its samples without keeping them."""
        for each in self.pollsters:
            if each.name == name:
                return await self._samples(each, Cycle(self._here, trial=True))
        known = ", ".join(sorted(each.name for each in self.pollsters)) or "none"
        raise LookupError(f"no pollster {name!r} is active here; active are: {known}")

    async def _poll(self, pollster: Decision, cycle: Cycle) -> list[Sample] | None:
        """Return a pollster's samples, or ``None`` with the reason logged once and the poll counted."""
        name = pollster.name
        began = self._here.clock.seconds()
        outcome, trouble = "ok", ""
        samples = None
        try:
            if name in self._under_way:
                raise DeferredTimeout(f"still busy with an earlier cycle after {self._timeout} s")
            samples = await within(self._here.clock, self._timeout, self._tracked(pollster, cycle))
        except Unavailable as error:
            outcome, trouble = "unavailable", str(error)
        except DeferredTimeout:
            outcome, trouble = "timeout", f"gave no answer within {self._timeout} s"
        except Exception as error:
            outcome, trouble = "error", f"{type(error).__name__}: {error}"
        self._metrics.polled(name, outcome, self._here.clock.seconds() - began, len(samples or ()))
        self._tell_change(name, trouble)
        return samples

    def _tracked(self, pollster: Decision, cycle: Cycle) -> Deferred[list[Sample]]:
        """A pollster that ignores being given up is not asked again until it has come back."""
        name = pollster.name
        work = Deferred.fromCoroutine(self._samples(pollster, cycle))
        if work.called:
            return work
        self._under_way[name] = work

        def gone(outcome: Any) -> Any:
            self._under_way.pop(name, None)
            return outcome

        return work.addBoth(gone)

    async def _samples(self, pollster: Decision, cycle: Cycle) -> list[Sample]:
        found = await pollster.plugin.poll(cycle)
        if not isinstance(found, Iterable):
            raise TypeError(f"poll() must return an iterable of Sample, not {found!r:.80}")
        samples = list(found)
        for sample in samples:
            if not isinstance(sample, Sample):
                raise TypeError(f"poll() must return Samples only, not {sample!r:.80}")
        return [sample for sample in samples if pollster.takes(sample.name)] if pollster.meters_off else samples

    def _tell_change(self, name: str, trouble: str) -> None:
        """One line when a pollster begins to fail, or fails otherwise, and one when it works again."""
        if trouble == self._troubles.get(name, ""):
            return
        if trouble:
            self._troubles[name] = trouble
            self._log.warn("pollster {name}: {trouble}", name=name, trouble=trouble)
        else:
            del self._troubles[name]
            self._log.info("pollster {name} works again", name=name)

    async def _keep(self, samples: Sequence[Sample]) -> bool:
        """Sign and spool; return whether the samples are safe. What is lost is logged with its range of time.

        A sample that cannot be signed is left out, and its neighbours are kept.
        """
        batches: dict[tuple[str, str], list[dict[str, Any]]] = {}
        signer = Signer(self._keys, self._source)
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
            if slices.over:
                await slices.pause()
            publications += casts(messages, key_id, batch_samples=self._batch)
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
