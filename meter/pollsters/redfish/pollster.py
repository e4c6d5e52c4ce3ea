"""The pollster of BMCs: all at the same time, each by itself. One that fails, or is slow, does not affect the others."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.plugin import IPlugin
from zope.interface import implementer

from meter.daemon.locks import Semaphore
from meter.http import BadTlsFile
from meter.http import IHttpClient
from meter.http import TlsOptions
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.redfish.bmc import ChassisReadings
from meter.pollsters.redfish.options import BmcOptions
from meter.pollsters.redfish.options import RedfishOptions
from meter.pollsters.redfish.reading import ClientMaker
from meter.pollsters.redfish.reading import KnownBmc
from meter.pollsters.redfish.reading import bmc_client
from meter.pollsters.redfish.reading import read_bmc
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.sample import run_text
from meter.sample import with_reserved

ENERGY = MeterDefinition("host.energy.wall", "cumulative", "J")
POWER = MeterDefinition("host.power.wall", "gauge", "W")

BMCS_AT_A_TIME = 32
BMC_SECONDS = 60.0
"""How long all requests to one BMC may take in a cycle."""


@implementer(IPlugin, ICentralPollster)
@dataclass(frozen=True)
class RedfishPollster:
    """Meters the energy and power that the BMCs of hosts measure."""

    name: ClassVar[str] = "redfish"
    meters: ClassVar[tuple[MeterDefinition, ...]] = (ENERGY, POWER)
    options: RedfishOptions = field(default_factory=RedfishOptions)
    make_client: ClientMaker = bmc_client

    def configured(self, options: RedfishOptions) -> RedfishPollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether there are BMCs, and they can be verified."""
        if not self.options.hosts:
            return Disabled("no BMCs are configured")
        try:
            self._client(context)
        except BadTlsFile as error:
            return Disabled(f"the BMCs cannot be verified: {error}")
        insecure = "the BMCs' certificates are not verified: a man in the middle can read the password"
        return Enabled(insecure if self.options.insecure else "")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all BMCs that have answered; the others are skipped."""
        try:
            client = self._client(cycle)
        except BadTlsFile as error:
            raise Unavailable(f"the BMCs cannot be verified: {error}") from None
        skipped = SkippedItems(cycle, self.name)
        places = Semaphore(BMCS_AT_A_TIME)
        samples: list[Sample] = []

        async def poll_one(bmc: BmcOptions) -> None:
            await places.acquire()
            try:
                samples.extend(await self._poll_bmc(bmc, client, cycle, skipped))
            finally:
                places.release()

        polls = [Deferred.fromCoroutine(poll_one(each)) for each in self.options.hosts]
        await gatherResults(polls, consumeErrors=True)
        skipped.report()
        return samples

    def _client(self, context: IPluginContext) -> IHttpClient:
        tls = TlsOptions(ca_file=self.options.ca_file, insecure=self.options.insecure)
        client: IHttpClient = context.daemon_cache(
            ("redfish client", tls), lambda: self.make_client(context.clock, tls)
        )
        return client

    async def _poll_bmc(
        self, bmc: BmcOptions, client: IHttpClient, cycle: ICycle, skipped: SkippedItems
    ) -> list[Sample]:
        """Return the samples of a BMC, none if it cannot be read: then its resources are skipped."""
        # With another URL or account, a BMC that has refused the former one is asked at once.
        key = ("redfish", bmc, self.options.username, self.options.password_file)
        known: KnownBmc = KnownBmc() if cycle.trial else cycle.daemon_cache(key, KnownBmc)
        try:
            authorization = partial(self.options.authorization, bmc)
            found = await read_bmc(bmc, authorization, client, cycle.clock, known, BMC_SECONDS)
        except BadItem as error:
            return _skipped(bmc, error, known, cycle, skipped)
        samples: list[Sample] = []
        for each in found:
            for problem in each.problems:
                skipped.add(f"{bmc.host}: {each.id}", problem, resources=(resource_of(bmc, each.id),))
            samples += _samples(bmc, each, known)
        known.resources = frozenset(resource_of(bmc, each.id) for each in found)
        return samples


def resource_of(bmc: BmcOptions, chassis: str) -> str:
    """Return the id of the resource of a chassis."""
    return f"{bmc.host}/{chassis}"


def _skipped(bmc: BmcOptions, error: BadItem, known: KnownBmc, cycle: ICycle, skipped: SkippedItems) -> list[Sample]:
    """Skip a BMC, whose resources may not be known yet with these settings; return no samples."""
    skipped.add(bmc.host, error, resources=known.resources)
    if not known.resources:
        with suppress(LookupError):
            cycle.provider(ISkippedSamples).resources_unknown(RedfishPollster.name, error.kind)
    return []


def _samples(bmc: BmcOptions, readings: ChassisReadings, known: KnownBmc) -> Iterator[Sample]:
    metadata = {"host": bmc.host, "chassis": readings.id, "method": "redfish"}
    resource = resource_of(bmc, readings.id)
    if readings.energy is not None:
        since = readings.energy.since
        # Without the time of the last reset there is no declared run: a drop is a reset.
        described = with_reserved(metadata, run=run_text(resource, since)) if since else metadata
        reset_at = known.reset_at(readings)
        if reset_at is not None:
            yield ENERGY.sample(0, resource, reset_at, resource_metadata=described)
        yield ENERGY.sample(readings.energy.joules, resource, readings.read_at, resource_metadata=described)
    if readings.watts is not None:
        yield POWER.sample(readings.watts, resource, readings.read_at, resource_metadata=metadata)
