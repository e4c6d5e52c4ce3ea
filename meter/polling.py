"""Polling: asks every pollster for its samples at the same interval, signs them and puts them into the outbox.

A cycle counts as done when its samples are on disk. A pollster that raises, hangs or returns rubbish hurts itself only.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.casting import casts
from meter.interfaces import ICycle
from meter.interfaces import IPollster
from meter.interfaces import ISurroundings
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.message import sign
from meter.sample import Sample
from meter.services import within
from meter.signature import BadSignature
from meter.signature import Keyring


@implementer(ISurroundings)
@dataclass(frozen=True)
class Surroundings:
    """What plugins may look at and work with; ``providers`` maps an interface to its one provider here."""

    daemon: str
    config: Any
    clock: IReactorTime
    providers: Mapping[Any, Any] = field(default_factory=dict)

    def provider(self, interface: Any) -> Any:
        """Return the provider of ``interface``; ``LookupError`` when this daemon has none."""
        try:
            return self.providers[interface]
        except KeyError:
            raise LookupError(f"{self.daemon} has no {interface.__name__}") from None


@implementer(ICycle)
class Cycle:
    """One polling cycle; what its pollsters share lives as long as it."""

    def __init__(self, here: Surroundings) -> None:
        self._here = here
        self._shared: dict[Hashable, _SharedWork] = {}
        self.daemon = here.daemon
        self.config = here.config
        self.clock = here.clock
        self.timestamp = datetime.fromtimestamp(here.clock.seconds(), UTC)

    def provider(self, interface: Any) -> Any:
        """Return the daemon's provider of ``interface``; ``LookupError`` when it has none."""
        return self._here.provider(interface)

    async def shared(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return what ``make`` gave to the first that asked with ``key`` in this cycle, or raise what it raised."""
        if key not in self._shared:
            self._shared[key] = _SharedWork(make())
        return await self._shared[key].outcome()


class _SharedWork:
    """Work that several wait for. Whoever is given up while waiting takes nothing from the others."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self._finished: tuple[Any] | None = None
        self._waiting: list[Deferred[Any]] = []

        async def run() -> Any:
            return await work

        Deferred.fromCoroutine(run()).addBoth(self._finish)

    def _finish(self, outcome: Any) -> None:
        self._finished = (outcome,)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(outcome)  # a Failure makes it fail

    def outcome(self) -> Deferred[Any]:
        each: Deferred[Any] = Deferred(lambda d: self._waiting.remove(d))
        if self._finished is None:
            self._waiting.append(each)
        else:
            each.callback(self._finished[0])
        return each


class PollingAccount(Protocol):
    """Where polling counts; :mod:`meter.metrics` has the real one."""

    def polled(self, pollster: str, outcome: str, seconds: float) -> None:
        """Count one poll: ``outcome`` is ``ok``, ``unavailable``, ``timeout`` or ``error``."""

    def sampled(self, count: int) -> None:
        """Count samples that are safe in the outbox."""


@dataclass(frozen=True, slots=True)
class Polled:
    """A pollster that works here, and the patterns of its meters that are switched off."""

    pollster: IPollster
    meters_off: tuple[str, ...] = ()

    def wants(self, sample: Sample) -> bool:
        """Say whether the sample's meter is not switched off."""
        return not any(fnmatchcase(sample.name, pattern) for pattern in self.meters_off)


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What one cycle brought: samples and distinct meters put into the outbox, and pollsters that failed."""

    samples: int
    meters: int
    failed: tuple[str, ...]
    seconds: float


class Polling:
    """Runs the cycles; :class:`meter.services.Periodic` says when.

    ``outbox_put`` takes publications and returns when they are on disk.
    """

    _log = Logger()

    def __init__(
        self,
        pollsters: Sequence[Polled],
        here: Surroundings,
        outbox_put: Callable[[Sequence[Publication]], Awaitable[None]],
        keys: Keyring,
        *,
        source: str,
        timeout_seconds: float,
        batch_samples: int,
        account: PollingAccount,
    ) -> None:
        self.pollsters = tuple(pollsters)
        self._here = here
        self._put = outbox_put
        self._keys = keys
        self._source = source
        self._timeout = timeout_seconds
        self._batch = batch_samples
        self._account = account
        self._troubles: dict[str, str] = {}
        self._under_way: dict[str, Deferred[Any]] = {}

    async def cycle(self) -> CycleReport:
        """Poll everyone once, at the same time; returns when the samples are on disk."""
        cycle = Cycle(self._here)
        began = self._here.clock.seconds()
        results = await gatherResults(
            [Deferred.fromCoroutine(self._poll(polled, cycle)) for polled in self.pollsters], consumeErrors=True
        )
        samples = [sample for result in results if result is not None for sample in result]
        failed = tuple(
            polled.pollster.name for polled, result in zip(self.pollsters, results, strict=True) if result is None
        )
        await self._keep(samples)
        report = CycleReport(
            len(samples), len({sample.name for sample in samples}), failed, self._here.clock.seconds() - began
        )
        self._log.info(
            "polled {samples} samples of {meters} meters in {seconds:.3f} s{failed}",
            samples=report.samples,
            meters=report.meters,
            seconds=report.seconds,
            failed=f"; without {', '.join(failed)}" if failed else "",
        )
        return report

    async def poll_now(self, name: str) -> list[Sample]:
        """Poll the pollster called ``name`` out of turn and return its samples without keeping them."""
        for polled in self.pollsters:
            if polled.pollster.name == name:
                return await self._samples(polled, Cycle(self._here))
        known = ", ".join(sorted(polled.pollster.name for polled in self.pollsters)) or "none"
        raise LookupError(f"no pollster {name!r} is active here; active are: {known}")

    async def _poll(self, polled: Polled, cycle: Cycle) -> list[Sample] | None:
        """Return a pollster's samples, or ``None`` with the reason logged once and the poll counted."""
        name = polled.pollster.name
        began = self._here.clock.seconds()
        outcome, trouble = "ok", ""
        samples = None
        try:
            if name in self._under_way:
                raise DeferredTimeout(f"still busy with an earlier cycle after {self._timeout} s")
            samples = await within(self._here.clock, self._timeout, self._tracked(polled, cycle))
        except Unavailable as error:
            outcome, trouble = "unavailable", str(error)
        except DeferredTimeout:
            outcome, trouble = "timeout", f"gave no answer within {self._timeout} s"
        except Exception as error:
            outcome, trouble = "error", f"{type(error).__name__}: {error}"
        self._account.polled(name, outcome, self._here.clock.seconds() - began)
        self._tell_change(name, trouble)
        return samples

    def _tracked(self, polled: Polled, cycle: Cycle) -> Deferred[list[Sample]]:
        """A pollster that ignores being given up is not asked again until it has come back."""
        name = polled.pollster.name
        work = Deferred.fromCoroutine(self._samples(polled, cycle))
        if work.called:
            return work
        self._under_way[name] = work

        def gone(outcome: Any) -> Any:
            self._under_way.pop(name, None)
            return outcome

        return work.addBoth(gone)

    async def _samples(self, polled: Polled, cycle: Cycle) -> list[Sample]:
        found = await polled.pollster.poll(cycle)
        if not isinstance(found, Iterable):
            raise TypeError(f"poll() must return an iterable of Sample, not {found!r:.80}")
        samples = list(found)
        for sample in samples:
            if not isinstance(sample, Sample):
                raise TypeError(f"poll() must return Samples only, not {sample!r:.80}")
        return [sample for sample in samples if polled.wants(sample)]

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

    async def _keep(self, samples: Sequence[Sample]) -> None:
        """Sign and spool; a sample that cannot be signed is left out with a log line, its neighbours are kept."""
        by_key: dict[str, list[dict[str, Any]]] = {}
        for sample in samples:
            try:
                message = sign(sample, self._keys, self._source)
                by_key.setdefault(self._keys.key_for(sample.timestamp).id, []).append(message)
            except BadSignature as error:
                self._account.polled("signing", "error", 0.0)
                self._log.error("LOST a sample of {meter}: {error}", meter=sample.name, error=error)
        publications = [
            publication
            for key_id, messages in by_key.items()
            for publication in casts(messages, key_id, batch_samples=self._batch)
        ]
        if publications:
            await self._put(publications)
        self._account.sampled(sum(map(len, by_key.values())))
