"""One reading of a BMC: within its time, not asked too often after it has refused, and any failure as one kind of error."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from meter.daemon.services import within
from meter.http import ErrorResponse
from meter.http import IHttpClient
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.http import TlsOptions
from meter.http.factory import create_client
from meter.interfaces import Unavailable
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.redfish.bmc import Bmc
from meter.pollsters.redfish.bmc import ChassisReadings
from meter.pollsters.redfish.documents import ChassisLinks
from meter.pollsters.redfish.options import BmcOptions

MAX_BODY_BYTES = 1024 * 1024
LIMITS = ServiceLimits(
    requests_per_second=5.0,
    max_in_flight=1,  # many BMCs answer one request at a time
    timeout_seconds=20.0,
    attempts=2,
    breaker_failures=4,
    breaker_seconds=600.0,
)
"""The limits of each BMC."""

LAYOUT_SECONDS = 3600.0
"""How long it is known which chassis a BMC has."""

REFUSED_SECONDS = 1800.0
"""How long a BMC that has refused the password is not asked again: some lock the account after a few attempts."""

REFUSED = (401, 403)

ClientMaker = Callable[[Any, TlsOptions], IHttpClient]


def bmc_client(reactor: Any, tls: TlsOptions) -> IHttpClient:
    """Return the client for all BMCs; raise :class:`~meter.tls.BadTlsFile`."""
    client = create_client(reactor, tls, max_body_bytes=MAX_BODY_BYTES)
    return LimitedHttpClient(client, reactor, limits=LIMITS)


class KnownBmc:
    """What is known of a BMC between polls; ``resources`` are those that it has been metered with."""

    def __init__(self) -> None:
        self.chassis: list[ChassisLinks] = []
        self.chassis_until = 0.0
        self.sensors: dict[str, bool] = {}
        self.resources: frozenset[str] = frozenset()
        self.refused_until = 0.0
        self.refusal = ""
        self._energy: dict[str, tuple[str, datetime]] = {}

    def reset_at(self, readings: ChassisReadings) -> datetime | None:
        """Take the energy of a chassis; return when it was reset, if that was after the poll before."""
        assert readings.energy is not None
        since, read_at = readings.energy.since, readings.read_at
        last_since, last_at = self._energy.get(readings.id, (since, read_at))
        self._energy[readings.id] = since, read_at
        if since == last_since:
            return None
        try:
            reset_at = datetime.fromisoformat(since)
            return reset_at if last_at <= reset_at < read_at else None
        except (ValueError, TypeError):  # no time, or one without a time zone
            return None


async def read_bmc(
    bmc: BmcOptions,
    authorization: Callable[[], str],
    client: IHttpClient,
    clock: IReactorTime,
    known: KnownBmc,
    seconds: float,
) -> list[ChassisReadings]:
    """Return the readings of all chassis of a BMC, which may take ``seconds``; raise ``BadItem`` if it cannot be read."""
    if clock.seconds() < known.refused_until:
        raise BadItem("refused", f"not asked again yet: {known.refusal}")
    try:
        return await within(clock, seconds, _read(bmc, authorization, client, clock, known))
    except ErrorResponse as error:
        known.chassis_until = 0.0
        if error.status not in REFUSED:
            raise BadItem("unavailable", str(error)) from None
        known.refused_until, known.refusal = clock.seconds() + REFUSED_SECONDS, str(error)
        raise BadItem("refused", known.refusal) from None
    except (Unavailable, OSError, DeferredTimeout) as error:
        raise BadItem("unavailable", str(error)) from None


async def _read(
    bmc: BmcOptions, authorization: Callable[[], str], client: IHttpClient, clock: IReactorTime, known: KnownBmc
) -> list[ChassisReadings]:
    each = Bmc(bmc, client, authorization())
    if not known.chassis or clock.seconds() >= known.chassis_until:
        known.chassis = await each.find_chassis()
        known.chassis_until = clock.seconds() + LAYOUT_SECONDS
        known.sensors.clear()
    return [await each.read(chassis, sensors=known.sensors) for chassis in known.chassis]
