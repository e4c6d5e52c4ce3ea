"""Traffic by class without a kernel: options, what nft may write, and what the plan makes of a table."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Awaitable
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from zope.interface.verify import verifyObject

from meter.interfaces import Disabled
from meter.interfaces import Domain
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.plugins.validation import plugin_problems
from meter.pollsters.egress import egress
from meter.pollsters.egress.classes import DestinationClasses
from meter.pollsters.egress.listing import TableListing
from meter.pollsters.egress.listing import Traffic
from meter.pollsters.egress.listing import UnexpectedListing
from meter.pollsters.egress.listing import read_listing
from meter.pollsters.egress.nftables import Nftables
from meter.pollsters.egress.nftables import NftFailed
from meter.pollsters.egress.options import EgressOptions
from meter.pollsters.egress.plan import KnownCounters
from meter.pollsters.egress.plan import TapPort
from meter.pollsters.egress.plan import Wanted
from meter.pollsters.egress.plan import make_plan
from meter.pollsters.egress.pollster import EgressPollster
from meter.pollsters.egress.ruleset import TapChain
from meter.pollsters.egress.ruleset import classes_in_rules
from meter.rating.book.price_directory import check_files
from meter.rating.book.price_files import PriceFile
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext
from tests.network_namespaces import domain_with

TOP = Path(__file__).parents[4]
PAGE = (TOP / "docs/egress.rst").read_text(encoding="utf-8")
EXAMPLES = [textwrap.dedent(each) for each in re.findall(r"\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", PAGE)]
INTERNAL = {"name": "internal", "prefixes": ["10.0.0.0/8", "fd00::/8"]}
CLASSES = EgressOptions(classes=[INTERNAL]).destination_classes()
BOOT = "0123abcd"


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def script(directory: Path, text: str) -> str:
    """A program in the place of nft."""
    path = directory / "nft"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# --- options -------------------------------------------------------------------------------------------------------


def problem_of(*classes: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        EgressOptions(classes=classes)
    return str(raised.value.errors()[0]["msg"])


def test_options_that_could_not_work_are_refused_with_what_would_be_right() -> None:
    narrow = {"name": "partner", "prefixes": ["10.1.0.0/16"]}
    assert "10.1.0.0/16 of the class partner is never used" in problem_of(INTERNAL, narrow)
    EgressOptions(classes=[narrow, INTERNAL])
    assert "10.0.0.0/8 of the class again is never used" in problem_of(INTERNAL, {**INTERNAL, "name": "again"})
    assert "two classes with the name internal" in problem_of(INTERNAL, {**INTERNAL, "prefixes": ["192.0.2.0/24"]})
    assert "exists without being configured" in problem_of({**INTERNAL, "name": "internet"})
    assert "10.0.0.1/8 has more bits than its length: write 10.0.0.0/8" in problem_of(
        {**INTERNAL, "prefixes": ["10.0.0.1/8"]}
    )
    assert "should be a prefix such as" in problem_of({**INTERNAL, "prefixes": ["10.0.0"]})
    assert "the class internal has no prefixes" in problem_of({**INTERNAL, "prefixes": []})
    assert "a prefix is a text" in problem_of({**INTERNAL, "prefixes": [167772160]})
    assert "pattern" in problem_of({**INTERNAL, "name": "in ternal"})


def test_examples_of_the_page_are_options_and_prices() -> None:
    options = EgressOptions(**tomllib.loads(EXAMPLES[0])["pollsters"]["egress"])
    assert options.destination_classes().names == ("internal", "region", "local", "internet")
    book = '[[book]]\nname = "b"\ncurrency = "EUR"\ntimezone = "UTC"\nissuer = "x"\n'
    checked = check_files([PriceFile("a.toml", book + EXAMPLES[1])], [])
    assert list(map(str, checked.problems)) == []
    assert re.match(r"network\.outgoing\.bytes:internet", tomllib.loads(EXAMPLES[1])["sku"][0]["meter"])


addresses = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
        lambda each: ip_network(each[0]).supernet(new_prefix=each[1])
    ),
    st.tuples(st.integers(2**64, 2**128 - 1), st.integers(0, 128)).map(
        lambda each: ip_network(each[0]).supernet(new_prefix=each[1])
    ),
)


@given(st.lists(addresses, min_size=1, max_size=8))
def test_sets_have_the_addresses_of_their_prefixes_and_do_not_overlap(prefixes: list[Any]) -> None:
    classes = DestinationClasses([("a", prefixes)])
    held = [each for one in classes.address_sets if one.class_name == "a" for each in one.prefixes]
    for each in prefixes:
        assert any(each.version == one.version and each.subnet_of(one) for one in held)  # type: ignore[arg-type]
    for number, each in enumerate(held):
        assert not any(each.version == other.version and each.overlaps(other) for other in held[number + 1 :])


def test_classes_in_another_order_are_others() -> None:
    one, two = ("a", [ip_network("10.0.0.0/8")]), ("b", [ip_network("192.0.2.0/24")])
    assert DestinationClasses([one, two]).digest != DestinationClasses([two, one]).digest
    assert DestinationClasses([one, two]).digest == DestinationClasses([one, two]).digest


# --- nft -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"nftables": 1}',
        b'{"nftables": [{"counter": {"name": "x", "packets": "1", "bytes": 1}}]}',
        b'{"nftables": [{"counter": {"name": "x", "packets": -1, "bytes": 1}}]}',
        b'{"nftables": [{"counter": {"name": "x", "packets": 1, "bytes": 18446744073709551615}}]}',
        b'{"nftables": [{"rule": {"chain": "x"}}]}',
        b'{"nftables": [' + b'{"a":' * 5000,
        b"\xff",
    ],
)
def test_what_is_no_list_of_a_table_is_an_error(body: bytes) -> None:
    with pytest.raises(UnexpectedListing):
        read_listing(body)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("sleep 60", "nft has not ended within 0.3 s"),
        ("cat /dev/zero & cat /dev/zero", "nft has written more than 1000 bytes"),
        (
            "echo 'dev/stdin:1:1-5: Error: Could not process rule: Not supported' >&2; exit 1",
            "Could not process rule: Not supported",
        ),
        ("exit 7", "nft has ended with status 7: "),
        ("kill -9 $$", "nft has ended with status -9: "),
        ("echo nonsense", "nft has not written a list of the table"),
        ("echo 'Error: Operation not permitted (you must be root)' >&2; exit 1", "needs the capability CAP_NET_ADMIN"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_nft_that_fails_hangs_or_writes_without_end_is_an_error(
    tmp_path: Path, program: str, reason: str
) -> None:
    nftables = Nftables([script(tmp_path, program)], in_thread=at_once, timeout_seconds=0.3, max_output_bytes=1000)
    with pytest.raises(NftFailed, match=re.escape(reason)):
        await nftables.listing()


@pytest_twisted.ensureDeferred
async def test_a_table_that_does_not_exist_is_empty_and_a_program_that_does_not_is_an_error(tmp_path: Path) -> None:
    missing = Nftables([script(tmp_path, "echo 'Error: No such file or directory' >&2; exit 1")], in_thread=at_once)
    assert await missing.listing() == TableListing()
    with pytest.raises(NftFailed, match="not installed"):
        await Nftables(["no-such-program"], in_thread=at_once).listing()


# --- the plan ------------------------------------------------------------------------------------------------------


def port(number: int = 7, device: str = "tap") -> TapPort:
    return TapPort(device, number, "uuid", "resource", {}, None, None)


def wanted(*ports: TapPort, interfaces: tuple[int, ...] = (7,), classes: DestinationClasses = CLASSES) -> Wanted:
    return Wanted(classes, BOOT, ("outgoing",), {each.interface: each for each in ports}, interfaces)


def table_of(*chains: TapChain, classes: DestinationClasses = CLASSES) -> TableListing:
    return TableListing(
        {chain.counter(name): Traffic(1, 100) for chain in chains for name in classes.names},
        frozenset(classes.set_names),
        {chain.name: [name and chain.counter(name) for name in classes_in_rules(classes)] for chain in chains},
    )


CHAIN = TapChain.new("outgoing", 7, BOOT, CLASSES.digest)


def test_a_chain_that_is_as_it_shall_be_remains() -> None:
    plan = make_plan(table_of(CHAIN), wanted(port()), KnownCounters())
    assert (plan.remaining, plan.commands()) == ([CHAIN], [])
    assert TapChain.from_name(CHAIN.name) == CHAIN


def test_names_of_others_in_the_table_are_left_alone() -> None:
    theirs = TableListing({"mine.internet": Traffic(1, 1)}, frozenset({"mine"}), {"mine": [""]})
    assert make_plan(theirs, wanted(), KnownCounters()).commands() == []


def test_of_two_chains_of_a_tap_one_remains() -> None:
    second = TapChain.new("outgoing", 7, BOOT, CLASSES.digest)
    plan = make_plan(table_of(CHAIN, second), wanted(port()), KnownCounters())
    assert len(plan.remaining) == len(plan.ending) == 1


@pytest.mark.parametrize("change", ["interface", "digest", "rules", "counter"])
def test_a_chain_that_is_not_as_it_shall_be_ends_and_its_values_are_sent_once(change: str) -> None:
    table, now = table_of(CHAIN), wanted(port())
    if change == "interface":
        now = wanted(port(8), interfaces=(8,))
    elif change == "digest":
        now = wanted(
            port(),
            classes=EgressOptions(classes=[{**INTERNAL, "prefixes": ["10.0.0.0/9", "fd00::/8"]}]).destination_classes(),
        )
    elif change == "rules":
        table = TableListing(table.counters, table.sets, {CHAIN.name: []})
    else:
        table = TableListing(dict(list(table.counters.items())[1:]), table.sets, table.chains)
    plan = make_plan(table, now, KnownCounters())
    assert (plan.remaining, plan.ending) == ([], [CHAIN])
    assert len(plan.new) == 1
    assert [*plan.deletions] == [
        {verb: {"chain": {"family": "netdev", "table": "meter_egress", "name": CHAIN.name}}}
        for verb in ("flush", "delete")
    ]
    # The next poll deletes the counters, and sends nothing.
    left = TableListing(table.counters, table.sets, {})
    plan = make_plan(left, now, KnownCounters(sent={CHAIN}))
    assert plan.ending == []
    assert len(plan.deletions) == len(table.counters)


def test_values_of_another_boot_or_that_went_back_are_not_sent() -> None:
    restored = TapChain.new("outgoing", 7, "99999999", CLASSES.digest)
    plan = make_plan(table_of(restored), wanted(port()), KnownCounters())
    assert (plan.remaining, plan.ending) == ([], [])
    before = {CHAIN: {"internet": Traffic(2, 50)}}
    plan = make_plan(table_of(CHAIN), wanted(port()), KnownCounters(values=before))
    assert (plan.remaining, plan.ending, len(plan.new)) == ([], [], 1)


# --- the pollster --------------------------------------------------------------------------------------------------


class NoNftables(Nftables):
    """An nftables with an empty table, which takes all changes."""

    def __init__(self) -> None:
        super().__init__(in_thread=at_once)
        self.failure: NftFailed | None = None

    def _run(self, arguments: Any, stdin: bytes = b"") -> bytes:
        if self.failure is not None:
            raise self.failure
        return b'{"nftables": []}'


class Skips:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def samples_skipped(
        self, plugin: str, reason: str, count: int = 1, resources: Any = (), projects: Any = ()
    ) -> None:
        self.reasons += [reason] * count


class ScriptedNftables(Nftables):
    """An nftables that returns these listings one after another, and counts the changes."""

    def __init__(self, *listings: TableListing) -> None:
        super().__init__(in_thread=at_once)
        self._listings = list(listings)
        self.changes = 0

    async def listing(self) -> TableListing:
        return self._listings.pop(0)

    async def change(self, commands: Any) -> None:
        self.changes += 1


def pollster(**changes: Any) -> EgressPollster:
    arguments = {
        "nftables": NoNftables(),
        "devices": lambda: {"tap-a": 7},
        "options": EgressOptions(classes=[INTERNAL]),
    }
    return EgressPollster(**{**arguments, **changes})


def test_the_pollster_is_a_plugin_that_is_also_polled_at_events() -> None:
    assert verifyObject(IDomainPollster, egress)
    assert plugin_problems(IDomainPollster, egress) == []


@pytest_twisted.ensureDeferred
async def test_the_pollster_says_why_it_does_not_apply() -> None:
    async def reason(each: EgressPollster, uri: str = "qemu:///system") -> str:
        context = FakePluginContext({IHypervisor: FakeHypervisor(uri=uri)} if uri else {})
        found = await each.enabled(context)
        assert isinstance(found, Disabled)
        return found.reason

    assert await reason(egress) == "no classes of destinations are configured"
    assert await reason(pollster(), "") == "no hypervisor is configured"
    assert "another host" in await reason(pollster(), "qemu+ssh://hv2/system")
    assert "test driver" in await reason(pollster(), "test:///default")
    missing = pollster(nftables=Nftables(["no-such-program"], in_thread=at_once))
    assert await reason(missing) == "nftables cannot count here: the program nft is not installed (package nftables)"


@pytest_twisted.ensureDeferred
async def test_interfaces_without_a_tap_are_skipped_and_the_poll_goes_on(tmp_path: Path) -> None:
    (tmp_path / "class/net/tap-m/macvtap").mkdir(parents=True)
    skips = Skips()
    domains: list[Domain] = [
        domain_with("tap-a"),
        domain_with("vhu1", "dpdk"),
        domain_with("tap-m", "macvtap"),
        domain_with("../..", "hostile"),
        domain_with("tap-b", "odd", **{"net.count": -1}),
    ]
    cycle = FakeCycle({IHypervisor: FakeHypervisor(domains, uri="qemu:///system"), ISkippedSamples: skips})
    found = await pollster(devices=lambda: {"tap-a": 7, "tap-m": 8}, sysfs=tmp_path).poll(cycle)
    assert {each.resource_id for each in found} == {"web-uuid-of-web-tap-a"}
    assert sorted(skips.reasons) == ["invalid", "no tap", "no tap", "no tap"]


@pytest_twisted.ensureDeferred
async def test_an_nft_that_fails_makes_the_poll_unavailable() -> None:
    each = pollster()
    assert isinstance(each.nftables, NoNftables)
    each.nftables.failure = NftFailed("nft has not ended within 20 s")
    waiting: Awaitable[Any] = each.poll(FakeCycle({IHypervisor: FakeHypervisor([domain_with("tap-a")])}))
    with pytest.raises(Unavailable, match="not ended"):
        await waiting


@pytest_twisted.ensureDeferred
async def test_nothing_is_changed_while_nothing_changes_and_last_values_are_read_after_the_end(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text(f"{BOOT}-0000\n")
    table = table_of(CHAIN)
    later = TableListing({name: Traffic(2, 150) for name in table.counters}, table.sets, {})
    nftables, devices = ScriptedNftables(table, table, later), {"tap-a": 7}
    each = pollster(nftables=nftables, devices=lambda: devices, boot_id=tmp_path / "boot_id")
    hypervisor = FakeHypervisor([domain_with("tap-a")], uri="qemu:///system")
    cycle = FakeCycle({IHypervisor: hypervisor})
    first = {sample.name: sample.volume for sample in await each.poll(cycle)}
    assert (first["network.outgoing.bytes:internet"], nftables.changes) == (114, 0)
    devices.clear()
    hypervisor.running = []
    last = {sample.name: sample.volume for sample in await each.poll(cycle.following())}
    assert (last["network.outgoing.bytes:internet"], nftables.changes) == (178, 1)
