"""SIGHUP with real daemons: what changes while they run, what is told, and that no message is lost or refused meanwhile."""

from __future__ import annotations

import json
import signal
import ssl
import time
import urllib.error
import urllib.request
import uuid
from hashlib import sha256
from pathlib import Path

import psycopg2
import pytest_twisted
from cryptography import x509

from tests.servers.certificates import Authority
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import until
from tests.system.test_keys import DEAD
from tests.system.test_keys import NEW
from tests.system.test_keys import OLD
from tests.system.test_keys import STORED
from tests.system.test_keys import WITHOUT_KEY
from tests.system.test_keys import meter_verify
from tests.system.test_keys import stored_samples
from tests.system.test_spine import publish

POLLING = '[compute]\nlibvirt_uri = "test:///default"\n[polling]\ninterval_seconds = {interval}\n'
NOTIFICATION = Path(__file__).parents[1] / "data/notifications/nova.compute.instance.create.end.json"
RELOADS = 'meter_configuration_reloads_total{{result="{}"}}'
WAITING = "meter_configuration_settings_waiting"


def reconfigured(daemon: Daemon, *changes: tuple[str, str], result: str = "ok") -> str:
    """Change the configuration of a running daemon, and return what it logs until the reload has ended."""
    text = daemon.config_file.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    daemon.config_file.write_text(text)
    return reloaded(daemon, result)


def reloaded(daemon: Daemon, result: str = "ok") -> str:
    before, length = daemon.metric(RELOADS.format(result)), len(daemon.log)
    daemon.send(signal.SIGHUP)
    until(lambda: daemon.metric(RELOADS.format(result)) > before, f"{daemon.name} to reload: {result}")
    return daemon.log[length:]


def test_agent_takes_other_intervals_and_plugins_and_names_what_waits(house: House, rabbitmq: object) -> None:
    house.bus = rabbitmq.vhost()  # type: ignore[attr-defined]
    agent = house.daemon("meter-compute", POLLING.format(interval="3600.0")).start()
    until(lambda: agent.metric("meter_polling_cycles_total") == 1, "the first cycle")

    log = reconfigured(
        agent,
        ("interval_seconds = 3600.0", "interval_seconds = 0.5"),
        ("confirm_timeout_seconds = 10.0", "confirm_timeout_seconds = 11.0"),
    )
    assert "reloaded [polling] interval_seconds: 3600.0 -> 0.5" in log
    assert "[bus] confirm_timeout_seconds has changed and takes effect after a restart: 10.0 -> 11.0" in log
    assert agent.metric(WAITING) == 1
    until(lambda: agent.metric("meter_polling_cycles_total") >= 4, "cycles at the new interval")

    polled = 'meter_polled_samples_total{pollster="cpu"}'
    agent.config_file.write_text(agent.config_file.read_text() + '[plugins]\ndisable = ["cpu"]\n')
    log = reloaded(agent)
    assert "reloaded [plugins] disable: [] -> ['cpu']" in log
    assert "has changed" not in log  # told before
    cycles, count = agent.metric("meter_polling_cycles_total"), agent.metric(polled)
    until(lambda: agent.metric("meter_polling_cycles_total") >= cycles + 3, "cycles without the plugin")
    assert count > 0
    # A cycle may have been running during the reload.
    count = agent.metric(polled)
    cycles = agent.metric("meter_polling_cycles_total")
    until(lambda: agent.metric("meter_polling_cycles_total") >= cycles + 2, "more of them")
    assert agent.metric(polled) == count

    reconfigured(agent, ('disable = ["cpu"]', "disable = []"), ("seconds = 11.0", "seconds = 10.0"))
    until(lambda: agent.metric(polled) > count, "samples of the plugin that is enabled again")
    assert "[bus] confirm_timeout_seconds has the value again that is in force" in agent.log
    assert agent.metric(WAITING) == 0
    assert agent.stop() in (0, -signal.SIGTERM)


def test_invalid_configuration_changes_nothing_and_its_errors_are_told(house: House, rabbitmq: object) -> None:
    house.bus = rabbitmq.vhost()  # type: ignore[attr-defined]
    agent = house.daemon("meter-compute", POLLING.format(interval="0.5")).start()
    until(lambda: agent.metric("meter_polling_cycles_total") > 0, "the first cycle")
    log = reconfigured(agent, ("interval_seconds = 0.5", "interval_seconds = -1.0"), result="invalid")
    assert "the configuration was not reloaded, what was in force stays so" in log
    assert "[polling] interval_seconds: should be greater than 0, not -1.0" in log
    cycles = agent.metric("meter_polling_cycles_total")
    until(lambda: agent.metric("meter_polling_cycles_total") > cycles, "cycles at the former interval")


@pytest_twisted.ensureDeferred
async def test_keys_are_rotated_under_load_without_a_lost_or_refused_sample(furnished: House) -> None:
    collector = furnished.daemon("meter-collector", OLD, base=WITHOUT_KEY).start().until_ready()
    agents = [
        furnished.daemon("meter-compute", OLD + POLLING.format(interval="0.3"), base=WITHOUT_KEY).start()
        for _ in range(2)
    ]
    until(lambda: collector.metric(STORED) > 50, "samples with the old key")
    reconfigured(collector, (OLD, OLD + NEW))
    for agent in agents:
        log = reconfigured(agent, (OLD, NEW + OLD))
        assert "reloaded [signing] keys (not shown)" in log
        assert "secret" not in log

    def both() -> bool:
        _, counts = meter_verify(collector)
        return set(counts["by_key"]) == {"2025", "2026"}

    until(both, "samples signed with each key")
    for agent in agents:
        reconfigured(agent, ("interval_seconds = 0.3", "interval_seconds = 3600.0"))
    until(lambda: not any(agent.metric("meter_spool_messages") for agent in agents), "the spools to be empty")
    published = sum(agent.metric("meter_published_samples_total") for agent in agents)
    until(lambda: collector.metric(STORED) >= published, f"{published} samples to be stored")
    assert collector.metric(STORED) == published
    assert collector.metric(DEAD) == 0
    assert collector.metric('meter_collected_samples_total{outcome="refused"}') == 0
    found = await stored_samples(furnished.store)
    assert {each.key_id for each in found} == {"2025", "2026"}


def test_listeners_change_while_notifications_arrive_and_each_becomes_a_sample(furnished: House) -> None:
    collector = furnished.daemon("meter-collector").start().until_ready()
    template = json.loads(NOTIFICATION.read_text())["message"]

    def notified(numbers: range) -> None:
        bodies = []
        for number in numbers:
            payload = {**template["payload"], "instance_id": f"instance-{number}"}
            body = {**template, "message_id": str(uuid.UUID(int=number)), "payload": payload}
            bodies.append({"exchange": "nova", "routing_key": "notifications.info", "body": json.dumps(body)})
        publish(furnished.bus, bodies)

    notified(range(150))
    log = reloaded_with(collector, '[plugins]\ndisable = ["disk.*"]\n')
    assert "reloaded [plugins] disable: [] -> ['disk.*']" in log
    notified(range(150, 200))

    def measured(meter: str) -> set[str]:
        rows = furnished_rows(furnished, meter)
        return {resource for [resource] in rows}

    until(lambda: len(measured("vcpus")) == 200, "a sample of each notification")
    assert not measured("disk.root.size") & {f"instance-{number}" for number in range(150, 200)}
    assert collector.metric("meter_dead_letters_total") == 0
    assert collector.readiness()["ready"]
    assert collector.stop() in (0, -signal.SIGTERM)
    assert "Traceback" not in collector.log


def reloaded_with(daemon: Daemon, more: str) -> str:
    """Add to the configuration of a running daemon; return what it logs until the reload has ended."""
    daemon.config_file.write_text(daemon.config_file.read_text() + more)
    return reloaded(daemon)


def furnished_rows(house: House, meter: str) -> list[tuple[str]]:
    """The resources that have samples of a meter."""
    connection = psycopg2.connect(house.store)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT r.name FROM series s JOIN meter m ON m.id = s.meter_id JOIN resource r ON r.id = s.resource_id WHERE m.name = %s",
                [meter],
            )
            return cursor.fetchall()
    finally:
        connection.close()


def test_running_api_presents_a_renewed_certificate_and_takes_other_tokens(furnished: House, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert_file, key_file = tmp_path / "api.pem", tmp_path / "api-key.pem"

    def hold(name: str) -> int:
        issued = authority.issue(name, "localhost")
        cert_file.write_bytes(issued.cert_file.read_bytes())
        key_file.write_bytes(issued.key_file.read_bytes())
        key_file.chmod(0o600)
        return issued.certificate.serial_number

    def token(text: str) -> str:
        return f'[[api.auth.tokens]]\nsha256 = "{sha256(text.encode()).hexdigest()}"\nadmin = true\n'

    first = hold("first")
    tls = f'[api.tls]\ncert_file = "{cert_file}"\nkey_file = "{key_file}"\n[api.auth]\nmode = "tokens"\n'
    api = furnished.daemon("meter-api", tls + token("one"))
    furnished.daemon("meter-collector").start().until_ready()  # makes the schema
    api.start().until_ready()
    trusting = ssl.create_default_context(cafile=str(authority.file))

    def asked(text: str) -> int:
        request = urllib.request.Request(
            f"https://localhost:{api.api_port}/v2/meters", headers={"X-Auth-Token": text, "Host": "localhost"}
        )
        try:
            with urllib.request.urlopen(request, context=trusting, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def serial() -> int:
        pem = ssl.get_server_certificate(("localhost", api.api_port))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    assert (asked("one"), asked("two"), serial()) == (200, 401, first)
    second = hold("second")
    reconfigured(api, (token("one"), token("two")))
    # Metrics, which tell when the certificate ends, may have looked at the files before the signal.
    assert "read again, for new connections: [api.tls] cert_file" in api.log
    assert (asked("one"), asked("two"), serial()) == (401, 200, second)


def test_signals_at_once_during_start_and_stop_end_nothing(house: House, rabbitmq: object) -> None:
    house.bus = rabbitmq.vhost()  # type: ignore[attr-defined]
    agent = house.daemon("meter-compute", POLLING.format(interval="3600.0")).start()
    until(lambda: agent.readiness()["status"], "the reactor to run")
    for _ in range(20):
        agent.send(signal.SIGHUP)
    until(lambda: agent.metric(RELOADS.format("ok")) >= 1, "a reload")
    agent.send(signal.SIGTERM)
    for _ in range(20):
        agent.send(signal.SIGHUP)
        time.sleep(0.01)
    assert agent.stop() in (0, -signal.SIGTERM)
    assert "Traceback" not in agent.log
