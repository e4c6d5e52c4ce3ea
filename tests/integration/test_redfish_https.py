"""Energy of hosts from BMCs over real HTTPS: certificates, passwords, and bodies that never end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime

from meter.http import HttpRequest
from meter.http import IHttpClient
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.http import TlsOptions
from meter.http.factory import create_client
from meter.interfaces import IHypervisor
from meter.interfaces import Unavailable
from meter.pollsters.energy.options import EnergyOptions
from meter.pollsters.redfish.options import RedfishOptions
from meter.pollsters.redfish.pollster import RedfishPollster
from meter.pollsters.redfish.reading import MAX_BODY_BYTES
from meter.pollsters.redfish.reading import bmc_client
from meter.sample import Sample
from meter.testing import FakeCycle
from meter.testing import FakePluginContext
from tests.emulated_bmc import SENSOR
from tests.emulated_bmc import EmulatedBmc
from tests.servers.certificates import Authority
from tests.unit.pollsters.energy.test_energy import TICKS
from tests.unit.pollsters.energy.test_energy import ComputeConfig
from tests.unit.pollsters.energy.test_energy import EnergyHost

# Twisted 26.10 hands certificates to pyOpenSSL 26 in a form that this will not take for ever.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


def impatient_client(clock: Any, tls: TlsOptions) -> IHttpClient:
    """The client of the pollster, that waits and repeats less."""
    client = create_client(clock, tls, max_body_bytes=MAX_BODY_BYTES)
    return LimitedHttpClient(client, clock, limits=ServiceLimits(timeout_seconds=0.5, attempts=1))


@asynccontextmanager
async def listening(bmc: EmulatedBmc, authority: Authority, host: str = "localhost") -> AsyncIterator[str]:
    """Serve ``bmc`` with a certificate for ``host``; yield its URL."""
    port = bmc.listen(reactor, authority.issue("bmc", host))
    try:
        yield f"https://localhost:{port.getHost().port}"
    finally:
        await maybeDeferred(port.stopListening)
        await bmc.end()


async def poll(directory: Path, authority: Authority | None, *urls: str, **options: Any) -> list[Sample]:
    (directory / "password").write_text("secret\n")
    pollster = RedfishPollster(
        RedfishOptions(
            username="meter",
            password_file=str(directory / "password"),
            ca_file=str(authority.file) if authority else "",
            hosts=[{"host": f"hv{n}", "url": url} for n, url in enumerate(urls, 1)],
            **options,
        )
    )
    if not options:
        pollster = replace(pollster, make_client=impatient_client)
    return list(await pollster.poll(FakeCycle(clock=IReactorTime(reactor))))  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_a_bmc_that_is_verified_is_metered(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with listening(EmulatedBmc(), authority) as url:
        samples = await poll(tmp_path, authority, url)
        insecurely = await poll(tmp_path, None, url, insecure=True)
    assert {each.name: each.volume for each in samples} == {"host.energy.wall": 130_198_042_800, "host.power.wall": 374}
    assert len(insecurely) == 2


@pytest_twisted.ensureDeferred
async def test_the_password_is_not_sent_to_a_bmc_that_is_not_verified(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority = Authority(tmp_path)
    other = Authority(tmp_path / "other")
    unknown, foreign = EmulatedBmc(), EmulatedBmc()
    async with listening(unknown, other) as one, listening(foreign, authority, "bmc9.example.org") as two:
        assert await poll(tmp_path, authority, one, two) == []
    assert (unknown.requested, foreign.requested) == ([], [])


@pytest_twisted.ensureDeferred
async def test_bmcs_that_hang_flood_redirect_or_refuse_do_not_affect_another(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    elsewhere, works = EmulatedBmc(), EmulatedBmc()
    bad = {behaviour: EmulatedBmc() for behaviour in ("hang", "flood", "redirect")}
    for behaviour, bmc in bad.items():
        bmc.behaviour = behaviour
    refuses = EmulatedBmc(password="another")
    async with (
        listening(elsewhere, authority) as bad["redirect"].location,
        listening(bad["hang"], authority) as one,
        listening(bad["flood"], authority) as two,
        listening(bad["redirect"], authority) as three,
        listening(refuses, authority) as four,
        listening(works, authority) as five,
    ):
        samples = await poll(tmp_path, authority, one, two, three, four, five)
    assert {each.resource_id for each in samples} == {"hv5/1U"}
    assert elsewhere.requested == [], "the password would be sent where the redirect leads"
    assert refuses.requested == ["/redfish/v1/"]


@pytest_twisted.ensureDeferred
async def test_a_response_without_end_is_cut_at_its_limit(tmp_path: Path) -> None:
    bmc = EmulatedBmc()
    bmc.behaviour = "flood"
    async with listening(bmc, authority := Authority(tmp_path)) as url:
        client = bmc_client(reactor, TlsOptions(ca_file=str(authority.file)))
        with pytest.raises(Unavailable, match="more than 1048576 bytes"):
            await client.send(
                "redfish:hv1", HttpRequest(method="GET", url=url, headers={"Authorization": bmc.authorization})
            )


@pytest_twisted.ensureDeferred
async def test_the_energy_of_a_host_is_shared_as_its_own_bmc_counts_it(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path, idle="host")
    (tmp_path / "password").write_text("secret\n")
    authority = Authority(tmp_path)
    bmc = EmulatedBmc()
    clock = IReactorTime(reactor)  # type: ignore[arg-type]
    host.context = FakePluginContext({IHypervisor: host.hypervisor}, clock=clock, config=ComputeConfig())  # type: ignore[arg-type]
    async with listening(bmc, authority) as url:
        account = {"url": url, "username": "meter", "password_file": str(tmp_path / "password")}
        options = EnergyOptions(bmc={**account, "ca_file": str(authority.file), "max_watts": 1e9}, idle="host")
        host.pollster = replace(host.pollster, options=options, make_client=bmc_client)
        for second in range(3):
            host.use(1000, busy=100 * TICKS)
            bmc.documents[SENSOR]["Reading"] = 36167 + second * 0.001
            found = await host.poll(a=75.0 * second)
    assert (found["energy.wall", "a"].volume, found["host.energy.wall.own", "hv1"].volume) == (2700, 900)
