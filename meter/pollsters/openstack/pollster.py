"""The pollster of one listing, and what all pollsters of OpenStack have in common."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.services import within
from meter.http.exchange import ErrorResponse
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.openstack import Listing
from meter.openstack import NoService
from meter.openstack import Page
from meter.openstack.keystone import NOT_FOUND
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import Row
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample

NOT_THERE = (NOT_FOUND, 410, 501)
"""Answers of a service that lacks an extension: not found, gone, not implemented."""

UNSUPPORTED_SECONDS = 3600.0
"""How long until a missing extension is asked for again: it may have been installed."""

ASKING_SECONDS = 8.0
"""A plugin has ten seconds to say whether it is enabled."""


class Diary:
    """What a pollster has told about entries that it left out, from cycle to cycle."""

    _log = Logger()

    def __init__(self) -> None:
        self._told: Mapping[str, str] = {}

    def tell(self, name: str, reasons: Mapping[str, tuple[str, str]]) -> None:
        """Log, by kind, an example of what could not be metered; once as long as the kinds stay the same."""
        kinds = {kind: f"{resource}: {text}" for resource, (kind, text) in reversed(list(reasons.items()))}
        for kind, example in kinds.items():
            if kind not in self._told:
                self._log.warn(
                    "{name}: {count} entries are left out ({kind}), as {example}",
                    name=name,
                    count=sum(each == kind for each, _ in reasons.values()),
                    kind=kind,
                    example=example,
                )
        self._told = kinds


class Omitted:
    """Gathers what one poll could not meter; for at most ``most`` resources it knows why."""

    def __init__(self, cycle: ICycle, name: str, most: int = 1000) -> None:
        self._name = name
        self._diary: Diary = Diary() if cycle.trial else cycle.daemon_cache(("openstack", name), Diary)
        self._most = most
        self._reasons: dict[str, tuple[str, str]] = {}
        try:
            self._count = cycle.provider(ISkippedSamples).samples_skipped
        except LookupError:
            self._count = None

    def add(self, resource: str, error: BadItem | BadSample) -> None:
        """Take one entry that is left out."""
        kind = getattr(error, "kind", "bad-sample")
        if self._count is not None:
            self._count(self._name, kind)
        if len(self._reasons) < self._most:
            self._reasons.setdefault(resource, (kind, str(error)))

    def tell(self) -> None:
        """Log what is new among them."""
        self._diary.tell(self._name, self._reasons)


class Support:
    """Whether a service has an optional listing, as far as is known from its answers."""

    _log = Logger()

    def __init__(self) -> None:
        self._worked = False
        self._unsupported = False
        self._ask_again_at = 0.0

    def due(self, seconds: float) -> bool:
        """Return whether it is time to ask."""
        return not self._unsupported or seconds >= self._ask_again_at

    def worked(self, name: str) -> None:
        """Note that the service has the listing of the pollster ``name``."""
        if self._unsupported:
            self._log.info("pollster {name}: now supported", name=name)
        self._worked, self._unsupported = True, False

    def is_lacking(self, name: str, error: ErrorResponse, seconds: float, *, optional: bool) -> bool:
        """Return whether ``error`` means that the service lacks the listing; log it the first time.

        What has worked before is away and not unsupported. *Not found* says it only of an ``optional`` listing.
        """
        if error.status not in NOT_THERE or self._worked or (error.status == NOT_FOUND and not optional):
            return False
        if not self._unsupported:
            self._log.warn(
                "pollster {name}: unsupported, asked again every {minutes:.0f} minutes: {error}",
                name=name,
                minutes=UNSUPPORTED_SECONDS / 60,
                error=error,
            )
        self._unsupported, self._ask_again_at = True, seconds + UNSUPPORTED_SECONDS
        return True


async def enabled_with(context: IPluginContext, service: str, extension: Listing | None = None) -> Enabled | Disabled:
    """Answer for a pollster that works where the catalogue has ``service``, and the service has ``extension``.

    While Keystone cannot be asked the answer is yes: the pollster is unavailable until it can.
    """
    try:
        openstack = context.provider(IOpenStack)
    except LookupError:
        return Disabled("no OpenStack is configured: [openstack] says how")

    async def look() -> Enabled | Disabled:
        try:
            await openstack.url(service)
            if extension is not None:
                async for _ in openstack.pages(extension):
                    break
        except NoService as error:
            return Disabled(str(error))
        except ErrorResponse as error:
            if error.status in NOT_THERE:
                return Disabled(f"the {service} service has no such extension: {error}")
        except Unavailable:
            pass
        return Enabled()

    try:
        return await within(context.clock, ASKING_SECONDS, look())
    except DeferredTimeout:
        return Enabled()


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class ListingPollster:
    """Meters all entries of the listing of ``row``. An entry that cannot be metered costs itself only."""

    row: Row
    options: None = None

    @property
    def name(self) -> str:
        """The name of the row."""
        return self.row.name

    @property
    def meters(self) -> tuple[MeterDefinition, ...]:
        """The meters of the row."""
        return tuple(measure.meter for measure in self.row.measures)

    def configured(self, options: None) -> ListingPollster:
        """Return the pollster: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Work where the catalogue has the service."""
        listing = self.row.listing
        return await enabled_with(context, listing.service, listing if self.row.extension else None)

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all entries, one page after the other; none where the service lacks the listing."""
        samples_skipped = Omitted(cycle, self.name)
        support: Support = (
            Support() if cycle.trial else cycle.daemon_cache(("openstack", self.name, "support"), Support)
        )
        if not support.due(cycle.clock.seconds()):
            return ()
        samples: dict[tuple[str, str], Sample] = {}
        try:
            async for page in cycle.provider(IOpenStack).pages(self.listing(cycle)):
                support.worked(self.name)
                for sample in self._of_page(page, samples_skipped):
                    # A listing that changes between its pages may show an entry twice.
                    samples[sample.resource_id, sample.name] = sample
        except ErrorResponse as error:
            if not support.is_lacking(self.name, error, cycle.clock.seconds(), optional=self.row.extension):
                raise
        samples_skipped.tell()
        return samples.values()

    def listing(self, cycle: ICycle) -> Listing:
        """Return what is asked for in ``cycle``."""
        return self.row.listing

    def _of_page(self, page: Page, samples_skipped: Omitted) -> Iterable[Sample]:
        for item in page.items:
            resource = "?"
            try:
                resource = self.row.resource_of(item)
                metadata = self.row.metadata_of(item)
                user_id, project_id = self.row.user_of(item), self.row.project_of(item)
            except BadItem as error:
                samples_skipped.add(resource, error)
                continue
            for measure in self.row.measures:
                try:
                    yield Sample(
                        name=measure.meter.name,
                        type=measure.meter.type,
                        unit=measure.meter.unit,
                        volume=measure.volume(item),
                        resource_id=resource,
                        timestamp=page.received_at,
                        user_id=user_id,
                        project_id=project_id,
                        resource_metadata=metadata,
                    )
                except (BadItem, BadSample) as error:
                    if not (measure.optional and getattr(error, "kind", "") == "no-volume"):
                        samples_skipped.add(resource, error)
