"""The pollster of one listing, and classes that all OpenStack pollsters share."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.services import within
from meter.http.client import ErrorResponse
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.openstack import Listing
from meter.openstack import NoService
from meter.openstack import Page
from meter.openstack.keystone import NOT_FOUND
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import MeteredListing
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.skipped_samples import ISkippedSamples

UNSUPPORTED_STATUSES = (NOT_FOUND, 410, 501)
"""Statuses of a service that lacks an extension: not found, gone, not implemented."""

UNSUPPORTED_SECONDS = 3600.0
"""How long a missing extension is not requested again: it may have been installed meanwhile."""

ENABLED_TIMEOUT_SECONDS = 8.0
"""A plugin has ten seconds to return from ``enabled()``."""


class LogOnce:
    """Logs the skipped entries of a pollster: each kind of reason once, until it has not occurred for a cycle."""

    _log = Logger()

    def __init__(self) -> None:
        self._logged: Mapping[str, str] = {}

    def log(self, name: str, reasons: Mapping[str, tuple[str, str]]) -> None:
        """Log the number of entries and an example for each kind that the previous cycle did not have."""
        kinds = {kind: f"{resource}: {text}" for resource, (kind, text) in reversed(list(reasons.items()))}
        for kind, example in kinds.items():
            if kind not in self._logged:
                self._log.warn(
                    "{name}: {count} entries are not metered ({kind}), for example {example}",
                    name=name,
                    count=sum(each == kind for each, _ in reasons.values()),
                    kind=kind,
                    example=example,
                )
        self._logged = kinds


class SkippedItems:
    """Counts the entries that one poll could not meter, and keeps the reasons of up to ``max_reasons`` of them."""

    def __init__(self, cycle: ICycle, name: str, max_reasons: int = 1000) -> None:
        self._name = name
        self._log_once: LogOnce = LogOnce() if cycle.trial else cycle.daemon_cache(("openstack", name), LogOnce)
        self._max_reasons = max_reasons
        self._reasons: dict[str, tuple[str, str]] = {}
        try:
            self._count = cycle.provider(ISkippedSamples).samples_skipped
        except LookupError:
            self._count = None

    def add(
        self, label: str, error: BadItem | BadSample, *, resources: Collection[str] = (), project: str = ""
    ) -> None:
        """Count an entry that is skipped because of ``error``; ``label`` names it in the log.

        ``resources`` are those that it describes, as far as they are known; of a ``project`` nothing was read.
        """
        kind = getattr(error, "kind", "bad-sample")
        if self._count is not None:
            self._count(self._name, kind, resources=resources, projects=(project,) if project else ())
        if len(self._reasons) < self._max_reasons:
            self._reasons.setdefault(label, (kind, str(error)))

    def report(self) -> None:
        """Log the reasons that are new."""
        self._log_once.log(self._name, self._reasons)


class ListingSupport:
    """Whether a service supports a listing, according to its responses."""

    _log = Logger()

    def __init__(self) -> None:
        self._worked = False
        self._unsupported = False
        self._retry_at = 0.0

    def due(self, seconds: float) -> bool:
        """Return whether the listing should be requested at the time ``seconds``."""
        return not self._unsupported or seconds >= self._retry_at

    def worked(self, name: str) -> None:
        """Record that the service has the listing of the pollster ``name``."""
        if self._unsupported:
            self._log.info("pollster {name}: now supported", name=name)
        self._worked, self._unsupported = True, False

    def is_unsupported(self, name: str, error: ErrorResponse, seconds: float, *, optional: bool) -> bool:
        """Return whether ``error`` means that the service lacks the listing; log it the first time.

        A listing that has worked before is unavailable, not unsupported. Status 404 counts only for an ``optional`` one.
        """
        if error.status not in UNSUPPORTED_STATUSES or self._worked or (error.status == NOT_FOUND and not optional):
            return False
        if not self._unsupported:
            self._log.warn(
                "pollster {name}: unsupported by the service, retried every {minutes:.0f} minutes: {error}",
                name=name,
                minutes=UNSUPPORTED_SECONDS / 60,
                error=error,
            )
        self._unsupported, self._retry_at = True, seconds + UNSUPPORTED_SECONDS
        return True


async def enabled_with(
    context: IPluginContext,
    service: str,
    extension: Listing | None = None,
    refusals: Mapping[int, str] = MappingProxyType({}),
) -> Enabled | Disabled:
    """Return whether the catalogue has ``service`` and the service has ``extension``, for a pollster that needs them.

    ``refusals`` are other statuses with which the service says that it has not, and what they mean.
    If Keystone or the service is not reachable, return enabled: the pollster is unavailable until it is.
    """
    try:
        openstack = context.provider(IOpenStack)
    except LookupError:
        return Disabled("no OpenStack cloud is configured in [openstack]")

    async def look_up() -> Enabled | Disabled:
        try:
            await openstack.url(service)
            if extension is not None:
                async for _ in openstack.pages(extension):
                    break
        except NoService as error:
            return Disabled(str(error))
        except ErrorResponse as error:
            if error.status in refusals:
                return Disabled(f"{refusals[error.status]}: {error}")
            if error.status in UNSUPPORTED_STATUSES:
                return Disabled(f"the {service} service has no such extension: {error}")
        except Unavailable:
            pass
        return Enabled()

    try:
        return await within(context.clock, ENABLED_TIMEOUT_SECONDS, look_up())
    except DeferredTimeout:
        return Enabled()


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class ListingPollster:
    """Meters all entries of a listing; an entry that cannot be metered is skipped."""

    metered: MeteredListing
    options: None = None

    @property
    def name(self) -> str:
        """The name of the pollster."""
        return self.metered.name

    @property
    def meters(self) -> tuple[MeterDefinition, ...]:
        """The meters of the listing."""
        return tuple(measure.meter for measure in self.metered.measures)

    def configured(self, options: None) -> ListingPollster:
        """Return the pollster: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the catalogue has the service and, for an extension, the service has the listing."""
        listing = self.metered.listing
        return await enabled_with(context, listing.service, listing if self.metered.extension else None)

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all entries on all pages; none if the service does not support the listing."""
        skipped = SkippedItems(cycle, self.name)
        support: ListingSupport = (
            ListingSupport() if cycle.trial else cycle.daemon_cache(("openstack", self.name, "support"), ListingSupport)
        )
        if not support.due(cycle.clock.seconds()):
            return ()
        samples: dict[tuple[str, str], Sample] = {}
        try:
            async for page in cycle.provider(IOpenStack).pages(self.listing(cycle)):
                support.worked(self.name)
                for sample in self._of_page(page, skipped):
                    # A listing that changes while it is read may have an entry on two pages.
                    samples[sample.resource_id, sample.name] = sample
        except ErrorResponse as error:
            if not support.is_unsupported(self.name, error, cycle.clock.seconds(), optional=self.metered.extension):
                raise
        skipped.report()
        return samples.values()

    def listing(self, cycle: ICycle) -> Listing:
        """Return the listing to request in ``cycle``."""
        return self.metered.listing

    def _of_page(self, page: Page, skipped: SkippedItems) -> Iterable[Sample]:
        for item in page.items:
            if self.metered.unbilled(item):
                continue
            resource = ""
            try:
                resource = self.metered.resource_of(item)
                metadata = self.metered.metadata_of(item)
                user_id, project_id = self.metered.user_of(item), self.metered.project_of(item)
            except BadItem as error:
                skipped.add(resource or "?", error, resources=(resource,) if resource else ())
                continue
            for measure in self.metered.measures:
                try:
                    yield measure.meter.sample(
                        measure.volume(item),
                        resource,
                        page.received_at,
                        user_id=user_id,
                        project_id=project_id,
                        resource_metadata=metadata,
                    )
                except (BadItem, BadSample) as error:
                    if not (measure.optional and getattr(error, "kind", "") == "no-volume"):
                        skipped.add(resource, error, resources=(resource,))
