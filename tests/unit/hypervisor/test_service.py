"""The hypervisor on a fake libvirt that hangs, fails and loses domains on request."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from meter.cycle_report import DOMAIN_HUNG
from meter.cycle_report import DOMAIN_UNREADABLE
from meter.daemon.services import Backoff
from meter.hypervisor import LibvirtHypervisor
from meter.hypervisor import resolve_uri
from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.interfaces import IDependency
from meter.interfaces import IHypervisor
from meter.interfaces import Unavailable
from tests.hygiene import LoggedErrors

URI = "fake:///system"
RUNNING = {"state.state": 1, "cpu.time": 5}


def failure(code: int, text: str = "it is so") -> Exception:
    error = libvirt.libvirtError(text)
    error.err = (code, 0, text, 2, None, None, None, 0, 0)
    return error


class FakeDomain:
    def __init__(self, name: str, stats: dict[str, int]) -> None:
        self._name = name
        self.stats = stats
        self.number = 1
        self.described = 0
        self.failures: list[Exception] = []

    def ID(self) -> int:
        return self.number

    def name(self) -> str:
        return self._name

    def UUIDString(self) -> str:
        return f"uuid of {self._name}"

    def XMLDesc(self) -> str:
        self.described += 1
        if self.failures:
            raise self.failures.pop(0)
        return f"<domain name='{self._name}'/>"

    def info(self) -> list[int]:
        return [self.stats["state.state"], 2048, 1024, 2, 77]


class FakeHost:
    """What all connections lead to. ``hang`` holds bulk calls back, each until ``go_on``; ``failures`` come first."""

    def __init__(self, *domains: FakeDomain) -> None:
        self.domains = list(domains)
        self.opened = 0
        self.closed = 0
        self.alive = True
        self.hang = 0
        self.hanging: Deferred[None] = Deferred()
        self.go_on = threading.Event()
        self.refusal: Exception | None = None
        self.failures: list[Exception] = []
        self.listening: list[FakeConnection] = []
        self.tells = True

    def emit(self, domain: FakeDomain, event: int, detail: int = 0) -> None:
        """Tell of a lifecycle event, as libvirt does: in a thread of its own."""
        for connection in list(self.listening):
            for kind, callback in connection.callbacks.values():
                if kind == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE:
                    callback(connection, domain, event, detail, None)

    def is_described_anew(self, domain: FakeDomain) -> None:
        for connection in list(self.listening):
            for kind, callback in connection.callbacks.values():
                if kind == libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE:
                    callback(connection, domain, 0, None, None)

    def open(self, uri: str) -> FakeConnection:
        assert uri == URI
        if self.refusal is not None:
            raise self.refusal
        self.opened += 1
        return FakeConnection(self)


class FakeConnection:
    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.callbacks: dict[int, tuple[int, Any]] = {}
        self.on_close: Any = None

    def setKeepAlive(self, _seconds: int, _count: int) -> int:
        raise failure(libvirt.VIR_ERR_NO_SUPPORT)

    def registerCloseCallback(self, callback: Any, _: Any) -> None:
        self.on_close = callback

    def unregisterCloseCallback(self) -> None:
        self.on_close = None

    def domainEventRegisterAny(self, _domain: None, kind: int, callback: Any, _: Any) -> int:
        if not self._host.tells:
            raise failure(libvirt.VIR_ERR_NO_SUPPORT)
        self._host.listening = [*{*self._host.listening, self}]
        self.callbacks[kind] = kind, callback
        return kind

    def domainEventDeregisterAny(self, number: int) -> None:
        del self.callbacks[number]

    def lookupByUUIDString(self, uuid: str) -> FakeDomain:
        for domain in self._host.domains:
            if domain.UUIDString() == uuid:
                return domain
        raise failure(libvirt.VIR_ERR_NO_DOMAIN)

    def domainListGetStats(self, domains: list[FakeDomain], _stats: int, _flags: int) -> Any:
        return [(domain, domain.stats) for domain in domains]

    def getAllDomainStats(self, stats: int, flags: int) -> list[tuple[FakeDomain, dict[str, int]]]:
        assert stats == 0
        assert flags == libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        if self._host.hang:
            self._host.hang -= 1
            hanging, self._host.hanging = self._host.hanging, Deferred()
            reactor.callFromThread(hanging.callback, None)
            self._host.go_on.wait()
        if self._host.failures:
            raise self._host.failures.pop(0)
        return [(domain, domain.stats) for domain in self._host.domains]

    def listAllDomains(self) -> list[FakeDomain]:
        return self._host.domains

    def numOfDomains(self) -> int:
        return len(self._host.domains)

    def isAlive(self) -> int:
        return int(self._host.alive)

    def close(self) -> None:
        self._host.closed += 1


@pytest.fixture
def host() -> Iterator[FakeHost]:
    host = FakeHost(FakeDomain("one", RUNNING), FakeDomain("two", RUNNING))
    yield host
    host.go_on.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hypervisor(host: FakeHost, clock: Clock) -> Iterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(
        URI,
        clock=clock,
        reactor_threads=IReactorFromThreads(reactor),
        timeout_seconds=10,
        check_seconds=30,
        backoff=Backoff(first=1.0, most=4.0, rng=lambda: 1.0),
        stuck_limit=2,
        open_connection=host.open,
    )
    yield hypervisor
    host.go_on.set()
    pytest_twisted.blockon(hypervisor.stopService())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await deferLater(reactor, 0)


async def two_turns() -> None:
    """Let the reactor do what threads have asked of it."""
    for _ in range(2):
        await deferLater(reactor, 0)


def polling(hypervisor: LibvirtHypervisor) -> Deferred[Any]:
    return Deferred.fromCoroutine(hypervisor.domains())


def test_hypervisor_provides_its_interfaces(hypervisor: LibvirtHypervisor) -> None:
    assert verifyObject(IHypervisor, hypervisor)
    assert verifyObject(IDependency, hypervisor)


# --- reading


@pytest_twisted.ensureDeferred
async def test_every_domain_comes_with_its_xml_and_statistics(hypervisor: LibvirtHypervisor) -> None:
    domains = await hypervisor.domains()
    assert [(domain.uuid, domain.name, domain.xml, domain.stats) for domain in domains] == [
        ("uuid of one", "one", "<domain name='one'/>", RUNNING),
        ("uuid of two", "two", "<domain name='two'/>", RUNNING),
    ]


@pytest_twisted.ensureDeferred
async def test_domain_with_only_a_state_gets_basic_statistics(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    host.domains = [FakeDomain("one", {"state.state": 1, "state.reason": 3})]
    [domain] = await hypervisor.domains()
    assert domain.stats == {
        "state.state": 1,
        "state.reason": 3,
        "balloon.maximum": 2048,
        "balloon.current": 1024,
        "vcpu.current": 2,
        "cpu.time": 77,
    }


@pytest_twisted.ensureDeferred
async def test_driver_without_the_bulk_call_is_read_domain_by_domain(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    host.failures = [failure(libvirt.VIR_ERR_NO_SUPPORT)]
    assert [domain.stats["cpu.time"] for domain in await hypervisor.domains()] == [77, 77]


@pytest_twisted.ensureDeferred
async def test_domain_that_disappears_meanwhile_is_skipped_silently(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    host.domains[0].failures = [failure(libvirt.VIR_ERR_NO_DOMAIN)]
    with capturedLogs() as events:
        assert [domain.name for domain in await hypervisor.domains()] == ["two"]
    assert "domain" not in {key for event in events for key in event}


@pytest_twisted.ensureDeferred
async def test_domain_that_cannot_be_read_is_skipped_and_logged_once(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    host.domains[0].failures = [failure(libvirt.VIR_ERR_INTERNAL_ERROR, "no such luck")] * 2
    with capturedLogs() as events:
        assert [domain.name for domain in await hypervisor.domains()] == ["two"]
        assert [domain.name for domain in await hypervisor.domains()] == ["two"]
    assert [(event["domain"], event["reason"]) for event in events if "domain" in event] == [("one", "no such luck")]


# --- the XML


def times_described(host: FakeHost) -> list[int]:
    return [domain.described for domain in host.domains]


@pytest_twisted.ensureDeferred
async def test_xml_of_a_domain_is_read_once(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    first, second = await hypervisor.domains(), await hypervisor.domains()
    assert [domain.xml for domain in first] == [domain.xml for domain in second]
    assert times_described(host) == [1, 1]


@pytest_twisted.ensureDeferred
async def test_xml_is_read_again_after_an_event(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    await hypervisor.domains()
    host.is_described_anew(host.domains[1])
    await two_turns()
    await hypervisor.domains()
    await hypervisor.domains()
    assert times_described(host) == [1, 2]


@pytest.mark.parametrize("sign", ["another run", "another device"])
@pytest_twisted.ensureDeferred
async def test_change_without_an_event_is_detected(hypervisor: LibvirtHypervisor, host: FakeHost, sign: str) -> None:
    await hypervisor.domains()
    if sign == "another run":
        host.domains[0].number = 2
    else:
        host.domains[0].stats = {**RUNNING, "net.0.name": "tap1"}
    await hypervisor.domains()
    assert times_described(host) == [2, 1]


@pytest_twisted.ensureDeferred
async def test_xml_is_read_again_when_the_cache_expires(
    hypervisor: LibvirtHypervisor, host: FakeHost, clock: Clock
) -> None:
    await hypervisor.domains()
    clock.advance(1799)
    await hypervisor.domains()
    assert times_described(host) == [1, 1]
    clock.advance(1801)
    await hypervisor.domains()
    assert times_described(host) == [2, 2]


@pytest_twisted.ensureDeferred
async def test_xml_is_always_read_on_a_new_connection_and_from_a_driver_without_events(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    await hypervisor.domains()
    host.tells = False
    host.failures = [failure(libvirt.VIR_ERR_RPC)]
    await hypervisor.domains()
    await hypervisor.domains()
    assert times_described(host) == [3, 3]


# --- changes of domains

STARTED, SUSPENDED, STOPPED, SHUTTING_DOWN = 2, 3, 5, 6
OFF = {"state.state": 5, "cpu.time": 999}


async def received_from(hypervisor: LibvirtHypervisor, events: Callable[[], object]) -> list[Domain]:
    """What an observer hears of ``events``."""
    received: list[Domain] = []
    hypervisor.observe(received.append)
    await hypervisor.domains()
    events()
    await two_turns()
    await until(lambda: hypervisor._notifying is None)
    return received


@pytest_twisted.ensureDeferred
async def test_started_domain_is_passed_on_with_its_statistics(
    hypervisor: LibvirtHypervisor, host: FakeHost, clock: Clock
) -> None:
    clock.advance(1000)
    [one] = await received_from(hypervisor, lambda: host.emit(host.domains[0], STARTED))
    assert (one.name, one.event, one.stats, one.run) == ("one", "started (booted)", RUNNING, 1)
    assert one.read_at is not None
    assert one.read_at.timestamp() == 1000


@pytest_twisted.ensureDeferred
async def test_events_arrive_in_order_each_with_its_resulting_state(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    domain = host.domains[0]

    def events() -> None:
        for event in (STARTED, SUSPENDED, SHUTTING_DOWN, STOPPED):
            host.emit(domain, event)
        domain.stats, domain.number = OFF, -1

    received = await received_from(hypervisor, events)
    assert [(one.event, one.stats["state.state"]) for one in received] == [
        ("started (booted)", 1),
        ("suspended (paused)", 3),
        ("shutting down (finished)", 4),
        ("stopped (shut down)", 5),
    ]
    assert all("cpu.time" not in one.stats for one in received), (
        "what libvirt tells of a domain that is off is not its own"
    )


@pytest_twisted.ensureDeferred
async def test_undefined_domain_is_passed_on_with_its_last_xml(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    def event() -> None:
        host.emit(host.domains.pop(), STOPPED, 1)

    [two] = await received_from(hypervisor, event)
    assert (two.xml, two.stats, two.event) == ("<domain name='two'/>", {"state.state": 5}, "stopped (destroyed)")


@pytest_twisted.ensureDeferred
async def test_domain_that_was_never_read_is_only_logged(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    with capturedLogs() as events:
        received = await received_from(hypervisor, lambda: host.emit(FakeDomain("brief", RUNNING), STARTED))
    assert received == []
    assert [event["domain"] for event in events if "domain" in event] == ["brief"]


@pytest_twisted.ensureDeferred
async def test_domain_that_moved_to_another_host_is_not_off(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    assert await received_from(hypervisor, lambda: host.emit(host.domains[0], STOPPED, 3)) == []


@pytest_twisted.ensureDeferred
async def test_event_of_a_newer_libvirt_has_no_state(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    assert await received_from(hypervisor, lambda: host.emit(host.domains[0], 99, 99)) == []


@pytest_twisted.ensureDeferred
async def test_event_whose_domain_cannot_be_read_is_passed_on_with_its_state(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    def event() -> None:
        host.emit(host.domains[0], SUSPENDED)
        host.domains = []
        host.alive = False
        host.refusal = failure(libvirt.VIR_ERR_SYSTEM_ERROR, "nobody there")

    [one] = await received_from(hypervisor, event)
    assert (one.xml, one.stats) == ("<domain name='one'/>", {"state.state": 3})


@pytest_twisted.ensureDeferred
async def test_observer_that_raises_does_not_affect_the_others(
    hypervisor: LibvirtHypervisor, host: FakeHost, logged_errors: LoggedErrors
) -> None:
    hypervisor.observe(lambda domain: 1 / 0)
    assert len(await received_from(hypervisor, lambda: host.emit(host.domains[0], STARTED))) == 1
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


@pytest_twisted.ensureDeferred
async def test_events_beyond_the_limit_are_dropped_and_counted(
    hypervisor: LibvirtHypervisor, host: FakeHost, logged_errors: LoggedErrors
) -> None:
    received = await received_from(hypervisor, lambda: [host.emit(host.domains[0], STARTED) for _ in range(1005)])
    assert hypervisor.dropped_events == 1005 - len(received) > 0
    assert len(logged_errors.flush()) == 1


# --- domains that could not be read


@pytest_twisted.ensureDeferred
async def test_domains_that_cannot_be_read_are_named_with_the_reason_until_they_can(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    await hypervisor.domains()
    one, two = host.domains
    one.number = two.number = 2  # another run: the XML is read again
    one.failures = [failure(libvirt.VIR_ERR_OPERATION_FAILED)]
    two.failures = [failure(libvirt.VIR_ERR_OPERATION_FAILED)]
    hypervisor.hung.set({"two": 7.0})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hypervisor, "_find_hung_domains", no_search)
        assert await hypervisor.domains() == []
        assert hypervisor.unreadable == {one.UUIDString(): DOMAIN_UNREADABLE, two.UUIDString(): DOMAIN_HUNG}
        assert len(await hypervisor.domains()) == 2
        assert hypervisor.unreadable == {two.UUIDString(): DOMAIN_HUNG}  # libvirt answers for it, though not completely
    await hypervisor.domains()
    assert hypervisor.unreadable == {}


async def no_search() -> None: ...


# --- failing


@pytest_twisted.ensureDeferred
async def test_connection_lost_between_two_calls_is_opened_again_at_once(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    await hypervisor.domains()
    host.failures = [failure(libvirt.VIR_ERR_RPC)]
    assert len(await hypervisor.domains()) == 2
    assert (host.opened, host.closed) == (2, 1)


@pytest_twisted.ensureDeferred
async def test_new_connection_that_fails_is_not_retried_in_the_same_call(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    host.failures = [failure(libvirt.VIR_ERR_RPC, "cut off"), failure(libvirt.VIR_ERR_RPC)]
    with pytest.raises(Unavailable, match=f"libvirt at {URI}: cut off"):
        await hypervisor.domains()
    assert len(host.failures) == 1


@pytest_twisted.ensureDeferred
async def test_connection_lost_between_two_domains_loses_none(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    await hypervisor.domains()
    host.domains[1].number = 2  # another run: its XML is read again
    host.domains[1].failures = [failure(libvirt.VIR_ERR_RPC, "cut off")]
    host.alive = False
    assert len(await hypervisor.domains()) == 2
    assert host.opened == 2


@pytest_twisted.ensureDeferred
async def test_missing_library_is_reported_with_how_to_install_it(
    hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(Unavailable, match=r"pip install 'meter-cloud\[compute\]'"):
        await hypervisor.domains()
    monkeypatch.undo()


# --- hanging


@pytest_twisted.ensureDeferred
async def test_hung_call_is_abandoned_and_repeated_on_a_new_connection(
    hypervisor: LibvirtHypervisor, host: FakeHost, clock: Clock
) -> None:
    host.hang, hanging = 1, host.hanging
    poll = polling(hypervisor)
    await hanging
    clock.advance(10)
    assert len(await poll) == 2
    assert (hypervisor.abandoned_calls, hypervisor.stuck_threads, host.opened) == (1, 1, 2)
    assert hypervisor.readiness().ready

    host.go_on.set()
    await until(lambda: hypervisor.stuck_threads == 0)
    assert hypervisor.abandoned_calls == 1
    assert host.closed == 1, "its connection is closed once its call has returned"


@pytest_twisted.ensureDeferred
async def test_number_of_hung_calls_is_limited(hypervisor: LibvirtHypervisor, host: FakeHost, clock: Clock) -> None:
    host.hang = 3
    poll = polling(hypervisor)
    for _ in range(2):
        await host.hanging
        clock.advance(10)
    with pytest.raises(Unavailable, match="two calls were not answered within 10 s"):
        await poll
    with pytest.raises(Unavailable, match="2 calls hang; no more calls are made"):
        await hypervisor.domains()
    assert (host.hang, host.opened) == (1, 2)

    host.hang = 0
    host.go_on.set()
    await until(lambda: hypervisor.stuck_threads == 0)
    assert len(await hypervisor.domains()) == 2


@pytest_twisted.ensureDeferred
async def test_calls_wait_for_each_other(hypervisor: LibvirtHypervisor, host: FakeHost, clock: Clock) -> None:
    host.hang, hanging = 1, host.hanging
    first, second = polling(hypervisor), polling(hypervisor)
    await hanging
    clock.advance(9)
    host.go_on.set()
    assert len(await first) == 2
    assert len(await second) == 2
    assert host.opened == 1


# --- as a service


@pytest_twisted.ensureDeferred
async def test_service_connects_without_a_call(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    assert hypervisor.readiness().reason == f"{URI} has not been called yet"
    hypervisor.startService()
    await until(lambda: hypervisor.readiness().ready)
    assert hypervisor.readiness().reason == f"connected to {URI}"


@pytest_twisted.ensureDeferred
async def test_service_pings_libvirt_after_growing_pauses_and_logs_two_states(
    hypervisor: LibvirtHypervisor, host: FakeHost, clock: Clock
) -> None:
    host.refusal = failure(libvirt.VIR_ERR_SYSTEM_ERROR, "nobody there")
    with capturedLogs() as events:
        hypervisor.startService()
        for pause in (1.0, 2.0, 4.0, 4.0):
            await until(lambda: len(clock.getDelayedCalls()) == 1 and not hypervisor._lock.locked)
            [call] = clock.getDelayedCalls()
            assert call.getTime() - clock.seconds() == pause
            assert hypervisor.readiness().reason == f"libvirt at {URI}: nobody there"
            clock.advance(pause)
        host.refusal = None
        await until(lambda: len(clock.getDelayedCalls()) == 1 and not hypervisor._lock.locked)
        clock.advance(4.0)
        await until(lambda: hypervisor.readiness().ready)
    logged = [
        event["log_format"]
        for event in events
        if event.get("log_namespace") == "meter.hypervisor.service.LibvirtHypervisor"
    ]
    assert logged == ["libvirt does not answer: {reason}", "libvirt at {uri} answers"]


@pytest_twisted.ensureDeferred
async def test_service_detects_that_libvirt_is_down(
    hypervisor: LibvirtHypervisor, host: FakeHost, clock: Clock
) -> None:
    hypervisor.startService()
    await until(lambda: hypervisor.readiness().ready and not hypervisor._lock.locked)
    host.refusal = failure(libvirt.VIR_ERR_SYSTEM_ERROR, "nobody there")
    FakeConnection.numOfDomains, kept = _cut_off, FakeConnection.numOfDomains
    try:
        clock.advance(30)
        await until(lambda: not hypervisor.readiness().ready)
    finally:
        FakeConnection.numOfDomains = kept
    assert "nobody there" in hypervisor.readiness().reason


def _cut_off(_connection: FakeConnection) -> int:
    raise failure(libvirt.VIR_ERR_RPC, "cut off")


@pytest_twisted.ensureDeferred
async def test_stop_closes_the_connection(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    hypervisor.startService()
    await until(lambda: hypervisor.readiness().ready)
    await hypervisor.stopService()
    assert (host.opened, host.closed) == (1, 1)
    assert not hypervisor.readiness().ready


@pytest_twisted.ensureDeferred
async def test_stop_does_not_wait_for_a_hung_call(hypervisor: LibvirtHypervisor, host: FakeHost, clock: Clock) -> None:
    host.hang, hanging = 1, host.hanging
    poll = polling(hypervisor)
    await hanging
    stopped = hypervisor.stopService()
    clock.advance(2)
    assert stopped.called
    host.go_on.set()
    await poll


@pytest_twisted.ensureDeferred
async def test_lost_connection_is_detected_at_once_and_opened_again(
    hypervisor: LibvirtHypervisor, host: FakeHost
) -> None:
    hypervisor.startService()
    await until(lambda: hypervisor._pause is not None)
    [connection] = host.listening
    host.failures = [failure(libvirt.VIR_ERR_RPC)]
    reasons = []
    found = hypervisor._report
    hypervisor._report = lambda ready, reason: (reasons.append(reason), found(ready, reason))  # type: ignore[method-assign,func-returns-value]
    connection.on_close(connection, 1, None)
    await until(lambda: len(reasons) == 2)
    assert reasons == [f"the connection to {URI} was lost: end of file", f"connected to {URI}"]


# --- the setting


def test_uri_is_used_unchanged() -> None:
    assert resolve_uri("lxc:///", sockets=()) == ("lxc:///", "set in the configuration")


def test_auto_is_the_test_driver_where_no_daemon_answers(tmp_path: Path) -> None:
    nothing, no_socket = tmp_path / "nothing", tmp_path / "file"
    no_socket.touch()
    assert resolve_uri("auto", sockets=(str(nothing), str(no_socket))) == (
        "test:///default",
        "no libvirt daemon answers on this host",
    )


def test_auto_is_the_system_uri_where_a_daemon_is_installed(tmp_path: Path) -> None:
    daemon = tmp_path / "libvirtd"
    daemon.touch(mode=0o755)
    assert resolve_uri("auto", sockets=(), search_path=str(tmp_path))[0] == "test:///default"
    assert resolve_uri("auto", sockets=(), search_path=str(tmp_path), installed_is_enough=True) == (
        "qemu:///system",
        f"{daemon} is installed",
    )


# --- absent domains


@pytest_twisted.ensureDeferred
async def test_absence_of_a_domain_follows_from_its_events(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    one, two = host.domains
    await hypervisor.domains()
    host.emit(one, 5, 3)  # stopped (migrated)
    host.emit(one, 1, 0)  # undefined (removed)
    host.emit(two, STOPPED, 1)
    await two_turns()
    absences = [hypervisor.absence(each.UUIDString()) for each in (one, two)]
    assert [absence.why for absence in absences] == ["migrated", "gone"]
    assert all(absence.since is not None for absence in absences)
    host.emit(one, 4, 1)  # resumed (migrated): it is back
    await two_turns()
    assert hypervisor.absence(one.UUIDString()) == Absence("gone")


@pytest_twisted.ensureDeferred
async def test_domain_that_could_not_be_read_is_unreadable(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    [one, _] = host.domains
    one.failures = [failure(libvirt.VIR_ERR_INTERNAL_ERROR)]
    with capturedLogs():
        await hypervisor.domains()
    assert hypervisor.absence(one.UUIDString()).why == "unreadable"
    await hypervisor.domains()
    assert hypervisor.absence(one.UUIDString()).why == "unreadable", "nobody knows how it was before"
    await hypervisor.domains()
    assert hypervisor.absence(one.UUIDString()).why == "gone"


@pytest_twisted.ensureDeferred
async def test_domain_that_begins_to_arrive_is_not_an_event(hypervisor: LibvirtHypervisor, host: FakeHost) -> None:
    received = await received_from(hypervisor, lambda: [host.emit(host.domains[0], *each) for each in ((2, 1), (4, 1))])
    assert [domain.event for domain in received] == ["resumed (migrated)"]
