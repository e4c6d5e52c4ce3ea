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
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.agent.clock_runs import ClockRuns
from meter.agent.cycle import Cycle
from meter.agent.cycle import PluginContext
from meter.agent.cycle_reports import CycleReporter
from meter.agent.cycle_reports import PollRecord
from meter.agent.skip_notes import SkipNotes
from meter.bus.batches import iter_publications
from meter.ceilometer_signature import BadSignature
from meter.daemon.locks import Lock
from meter.daemon.metrics import PollingMetrics
from meter.daemon.services import Slices
from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.message_ids import PollIds
from meter.outgoing import Signer
from meter.plugins.registry import Decision
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.skipped_samples import ISkippedSamples

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
    configured one. ``reports``, if given, spools a report of each cycle after its samples; ``clock_runs``, if given, names the runs of counters
    after the clock was set back.
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
        reports: CycleReporter | None = None,
        clock_runs: ClockRuns | None = None,
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
        self._reports = reports
        self._clock_runs = clock_runs
        self._failures: dict[str, str] = {}
        self._in_progress: dict[str, Deferred[Any]] = {}
        self._ids: dict[str, PollIds] = {}
        self._cycle_lock = Lock()

    def set_limits(self, *, timeout_seconds: float, batch_samples: int) -> None:
        """Use other limits from the next poll on."""
        self._timeout = timeout_seconds
        self._batch_samples = batch_samples

    async def cycle(self, pollsters: Sequence[Decision] | None = None) -> CycleResult:
        """Run all pollsters once, or those given, concurrently; returns when the samples are on disk."""
        async with self._cycle_lock:
            notes = SkipNotes(self._metrics)
            cycle = Cycle(self._context.with_providers({ISkippedSamples: notes}))
            report, polls = await self._cycle(self.pollsters if pollsters is None else pollsters, cycle)
            if self._reports is not None:
                try:
                    await self._reports.cycle_ended(cycle.timestamp, polls, notes)
                except Exception:
                    self._log.failure("the report of the cycle could not be made")
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
            report, polls = await self._cycle(pollsters, Cycle(self._context.with_providers(providers)))
            if self._reports is not None:
                self._reports.polled_off_schedule(polls)
            return report

    async def _cycle(self, pollsters: Sequence[Decision], cycle: Cycle) -> tuple[CycleResult, list[PollRecord]]:
        began = cycle.clock.seconds()
        if self._clock_runs is not None:
            self._clock_runs.begin(wall_seconds(cycle.clock))
        spooling_lock = Lock()
        meters = Counter[str]()
        polls = [PollRecord(each.name, self._interval_of(each.name)) for each in pollsters]
        await gatherResults(
            [
                Deferred.fromCoroutine(self._poll(each, cycle, spooling_lock, poll, meters))
                for each, poll in zip(pollsters, polls, strict=True)
            ],
            consumeErrors=True,
        )
        if self._clock_runs is not None:
            await self._clock_runs.end(wall_seconds(cycle.clock))
        failed = tuple(each.name for each in pollsters if each.name in self._failures)
        return CycleResult(meters.total(), len(meters), failed, cycle.clock.seconds() - began), polls

    async def poll_now(self, name: str) -> list[Sample]:
        """Run the pollster ``name`` now and return its samples, which are not spooled."""
        for each in self.pollsters:
            if each.name == name:
                found = await each.plugin.poll(Cycle(self._context, trial=True))
                stream = SampleStream(each, found, self._context.clock, self._timeout)
                samples = await stream.take(sys.maxsize)
                await stream.take(1)  # raises what ended the samples early
                name_of = self._unit_name
                return [replace(one, unit=name_of(one.unit)) for one in samples] if name_of else samples
        known = ", ".join(sorted(each.name for each in self.pollsters)) or "none"
        raise LookupError(f"no pollster {name!r} is active here; active are: {known}")

    async def _poll(
        self, pollster: Decision, cycle: Cycle, spooling_lock: Lock, poll: PollRecord, meters: Counter[str]
    ) -> None:
        """Run a pollster and record in ``poll`` what it did; count in ``meters`` its samples on disk, by meter.

        If the poll fails the reason is logged once, and the samples that it has made are spooled.
        """
        clock = self._context.clock
        failure = ""
        stream = None
        began = clock.seconds()
        try:
            if pollster.name in self._in_progress:
                poll.asked = False
                raise DeferredTimeout(f"the poll of an earlier cycle is still running after {self._timeout} s")
            found = await within(clock, self._timeout, self._no_overlap(pollster, cycle))
            stream = SampleStream(pollster, found, clock, self._timeout, clock.seconds() - began)
            # Samples are made, signed and written in chunks: memory is bounded, and other pollsters do not wait.
            async with spooling_lock:
                ids = self._ids_of_poll(pollster.name)
                while samples := await stream.take(SPOOL_CHUNK_SAMPLES):
                    await self._sign_and_spool(samples, poll, meters, ids)
        except Unavailable as error:
            poll.outcome, failure = "unavailable", str(error)
        except DeferredTimeout:
            poll.outcome, failure = "timeout", f"no result within {self._timeout} s"
        except Exception as error:
            poll.outcome, failure = "error", f"{type(error).__name__}: {error}"
        seconds, count = (stream.seconds, stream.count) if stream is not None else (clock.seconds() - began, 0)
        poll.seconds = seconds
        poll.error = failure or poll.error
        self._metrics.polled(pollster.name, "ok" if poll.outcome == "not stored" else poll.outcome, seconds, count)
        self._log_state_change(pollster.name, failure)

    def _ids_of_poll(self, name: str) -> PollIds:
        """Return the ids of the poll of a pollster that begins."""
        ids = self._ids.get(name)
        if ids is None:
            ids = self._ids[name] = PollIds(lambda: int(wall_seconds(self._context.clock) * 1000))
        ids.begin()
        return ids

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

    async def _sign_and_spool(
        self, samples: Sequence[Sample], poll: PollRecord, meters: Counter[str], ids: PollIds
    ) -> None:
        """Sign and spool; count the samples that are on disk. Losses are logged with their time range.

        A sample that cannot be signed is skipped; the others are spooled.
        """
        if self._clock_runs is not None:
            samples = self._clock_runs.applied(samples)
        messages = []
        signer = Signer(
            self._keys,
            self._source,
            interval_seconds=poll.interval_seconds,
            unit_name=self._unit_name,
            new_id=ids.next,
        )
        slices = Slices(self._context.clock)
        unsigned: set[int] = set()
        for index, sample in enumerate(samples):
            if slices.over:
                await slices.pause()
            try:
                messages.append(signer.message(sample))
            except BadSignature as error:
                unsigned.add(index)
                self._log.error("LOST a sample of {meter}: {error}", meter=sample.name, error=error)
                self._lost(poll, [sample], str(error))
        signed = [sample for index, sample in enumerate(samples) if index not in unsigned] if unsigned else samples
        if self._reports is not None:
            poll.measured.add(signed)
            if unsigned:
                poll.measured.add(filter(_has_valid_names, (samples[index] for index in sorted(unsigned))))
        publications = []
        for publication in iter_publications(messages, batch_samples=self._batch_samples):
            publications.append(publication)
            if slices.over:
                await slices.pause()
        if not publications:
            return
        try:
            await self._put(publications)
        except Unavailable as error:
            first, last = self._lost(poll, signed, str(error))
            self._log.error(
                "LOST {samples} samples, measured from {first} to {last}: {error}",
                samples=len(signed),
                first=first.isoformat(),
                last=last.isoformat(),
                error=error,
            )
            return
        poll.samples += len(signed)
        meters.update(sample.name for sample in signed)

    def _lost(self, poll: PollRecord, samples: Sequence[Sample], reason: str) -> tuple[datetime, datetime]:
        """Record that samples are not on disk; return the times of the first and the last."""
        times = [sample.timestamp for sample in samples]
        first, last = min(times), max(times)
        poll.outcome, poll.error = "not stored", reason
        if self._reports is not None:
            self._reports.lost(len(samples), first, last, reason)
        return first, last


def _has_valid_names(sample: Sample) -> bool:
    """Return whether the series of a sample can be named in a report: JSON has no lone surrogates."""
    try:
        "".join((sample.name, sample.resource_id, sample.project_id or "")).encode()
    except UnicodeEncodeError:
        return False
    return True


class SampleStream:
    """Takes samples from the iterable that a pollster has returned, such as a list or a generator.

    ``seconds`` is the time that the pollster has used, starting with ``seconds`` for the poll itself, and limited to
    ``limit_seconds``. ``count`` is the number of samples taken. An error in the middle is raised by :meth:`take` after
    the samples that were made before it have been returned.
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
        self._failure: Exception | None = None
        self.seconds = seconds
        self.count = 0

    async def take(self, limit: int) -> list[Sample]:
        """Return the next samples, at most ``limit``; an empty list at the end."""
        if self._failure is not None:
            raise self._failure
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
        except Exception as error:
            if not taken or isinstance(error, CancelledError):
                raise
            self._failure = error
        finally:
            self.seconds += self._clock.seconds() - began
            self.count += len(taken)
        return taken
