"""The energy of the whole host at its own BMC, read by the compute agent, and its sums between two polls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from meter.http import BadTlsFile
from meter.http import IHttpClient
from meter.http import TlsOptions
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.pollsters.energy.ledger import EnergyLedger
from meter.pollsters.energy.wall import UncertainEnergy
from meter.pollsters.energy.wall import WallCounter
from meter.pollsters.energy.wall import WallLedger
from meter.pollsters.energy.wall import WallReading
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.redfish.options import OwnBmcOptions
from meter.pollsters.redfish.reading import ClientMaker
from meter.pollsters.redfish.reading import KnownBmc
from meter.pollsters.redfish.reading import read_bmc

BMC_SECONDS = 15.0
"""How long the BMC may take in a cycle: the samples of the processors' energy wait for it."""


@dataclass(frozen=True, slots=True)
class WallPoll:
    """The sums after a reading at ``at``. ``last_at`` is the reading before, at which the runs ``known`` had a sum; ``None`` if there was none."""

    ledger: WallLedger
    at: datetime
    last_at: datetime | None
    known: frozenset[tuple[str, str]]


class _KeptBmc:
    """What is kept between polls with the same options: what is known of the BMC, and the sums."""

    def __init__(self) -> None:
        self.bmc = KnownBmc()
        self.ledger: WallLedger | None = None


class OwnBmc:
    """The BMC of this host, by ``options``; ``make_client`` returns the HTTP client for it."""

    def __init__(self, options: OwnBmcOptions, make_client: ClientMaker) -> None:
        self._options = options
        self._make_client = make_client

    def remark(self, context: IPluginContext) -> str:
        """Return what is wrong or dangerous with the settings, ``""`` if nothing is."""
        try:
            self._client(context)
        except BadTlsFile as error:
            return f"no energy of the whole host: its BMC cannot be verified: {error}"
        if self._options.insecure:
            return "the BMC's certificate is not verified: a man in the middle can read the password"
        return ""

    async def take(self, cycle: ICycle, host: str, rapl: EnergyLedger) -> WallPoll:
        """Read the BMC and return the sums with what was taken; raise ``BadItem``.

        If the BMC cannot be read, the next reading tells what was taken meanwhile. Before the first change of the counter (*starting*), and
        when it is not certain what was taken (*uncertain*), there are no sums.
        """
        kept: _KeptBmc = (
            _KeptBmc() if cycle.trial else cycle.daemon_cache(("energy of own BMC", self._options), _KeptBmc)
        )
        reading = await self._read(cycle, host, kept.bmc)
        ledger = kept.ledger
        if ledger is None:
            kept.ledger = WallLedger(reading, rapl, self._options.max_watts)
            raise _starting()
        last_at, known = ledger.last.at, frozenset(ledger.domains_j)
        begun = ledger.since is not None
        try:
            ledger.take(reading, rapl)
        except UncertainEnergy as error:
            kept.ledger = WallLedger(reading, rapl, self._options.max_watts)
            raise BadItem(
                "uncertain", f"what was taken since {last_at:%FT%TZ} is in no sum, and all sums begin again: {error}"
            ) from None
        if ledger.since is None:
            raise _starting()
        return WallPoll(ledger, reading.at, last_at if begun else None, known)

    async def _read(self, cycle: ICycle, host: str, known: KnownBmc) -> WallReading:
        try:
            client = self._client(cycle)
        except BadTlsFile as error:
            raise BadItem("unavailable", f"it cannot be verified: {error}") from None
        found = await read_bmc(
            self._options.bmc(host), self._options.authorization, client, cycle.clock, known, BMC_SECONDS
        )
        counters = {}
        for each in found:
            if each.energy is None:
                raise each.problems[0] if each.problems else BadItem("no-energy", f"chassis {each.id} counts no energy")
            counters[each.id] = WallCounter(each.energy.since, Fraction(each.energy.joules))
        return WallReading(found[-1].read_at, cycle.clock.seconds(), counters)

    def _client(self, context: IPluginContext) -> IHttpClient:
        tls = TlsOptions(ca_file=self._options.ca_file, insecure=self._options.insecure)
        client: IHttpClient = context.daemon_cache(
            ("own BMC client", tls), lambda: self._make_client(context.clock, tls)
        )
        return client


def _starting() -> BadItem:
    return BadItem("starting", "the sums begin with the next change of its counter of energy")
