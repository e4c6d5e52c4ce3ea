"""``meter-doctor`` on a real broker, database and daemons: healthy, and with each of several things broken."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import msgspec
import pytest

import meter
from meter.agent.destination import fingerprints
from meter.commands.doctor.checks import CHECKS
from meter.heartbeat import Heartbeat
from meter.sample import utc_text
from meter.signing_keys import SigningKey
from tests.servers import not_installed
from tests.servers.postgresql import INSTALL
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed
from tests.system.daemons import BASE
from tests.system.daemons import SECRET
from tests.system.daemons import House
from tests.system.daemons import until
from tests.system.test_dead_letters import dead_lettered
from tests.system.test_dead_letters import signed_with
from tests.system.test_spine import cast_bodies
from tests.system.test_spine import publish
from tests.system.test_spine import sample

DOCTOR = "from meter.commands.doctor.command import main; main()"

DOMAIN = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""The only domain of libvirt's test driver."""

KEY = ("default", fingerprints([SigningKey("default", SECRET.encode())])[0])

CYCLE_RUN = "INSERT INTO cycle_run SELECT * FROM jsonb_populate_record(NULL::cycle_run, '{}')"

SAFE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


@pytest.fixture(scope="module")
def safe_postgresql(server_directory):
    """A PostgreSQL that a crash takes nothing from."""
    binaries = installed()
    if binaries is None:
        not_installed(INSTALL)
    server = PostgreSQL(binaries, server_directory("meter-doctor-"), SAFE)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def site(tmp_path, rabbitmq, safe_postgresql):
    house = House(tmp_path, bus=rabbitmq.vhost(), store=safe_postgresql.dsn())
    yield house
    house.close()


def doctor(daemon, *arguments):
    """Run the command with a daemon's configuration; return its exit status and its findings by check, or its text."""
    daemon.config_file.chmod(0o600)
    ran = subprocess.run(
        [sys.executable, "-c", DOCTOR, "--config", str(daemon.config_file), *arguments],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert SECRET not in ran.stdout + ran.stderr
    return ran.returncode, ran.stdout, ran.stderr


def findings(daemon):
    status, output, errors = doctor(daemon, "--json")
    assert output, errors
    found = json.loads(output)["findings"]
    return status, {each["check"]: [f for f in found if f["check"] == each["check"]] for each in found}


def bad(found):
    """What is neither ok nor left out, as texts."""
    return [
        f"{each['check']}: {each['text']}"
        for several in found.values()
        for each in several
        if each["level"] in ("warning", "fault")
    ]


def beat(server, dsn, name, *, received=None, clock=None, **members):
    """Store a heartbeat as a collector does."""
    now = datetime.now(UTC)
    daemon, _, host = name.partition("@")
    content = Heartbeat(
        name=name,
        daemon=daemon,
        host=host,
        boot=str(uuid.uuid4()),
        sequence=1,
        version=meter.__version__,
        started_at=utc_text(now),
        clock=utc_text(clock or now),
        **members,
    )
    text = msgspec.json.encode(content).decode().replace("'", "''")
    server.execute(
        "INSERT INTO daemon_heartbeat (name, boot, sequence, clock, received_at, content) VALUES"
        f" ('{name}', '{content.boot}', 1, '{(clock or now).isoformat()}', '{(received or now).isoformat()}', '{text}')"
        " ON CONFLICT (name) DO UPDATE SET clock = excluded.clock, received_at = excluded.received_at,"
        " content = excluded.content",
        dsn,
    )


def running(site, server):
    """A collector that has stored a few samples of now, and whose heartbeat is stored."""
    collector = site.daemon("meter-collector").start().until_ready()
    publish(site.bus, cast_bodies([sample(n, timestamp=datetime.now(UTC)) for n in range(1, 4)]))
    until(lambda: server.execute("SELECT count(*) FROM sample", site.store)[0][0] >= 3, "the samples")
    beat(server, site.store, "meter-collector@host1", key_ids=(KEY,))
    return collector


def test_a_healthy_installation_has_no_finding(site, safe_postgresql):
    collector = running(site, safe_postgresql)

    status, found = findings(collector)

    assert bad(found) == []
    assert status == 0
    assert list(found) == list(CHECKS)
    assert found["broker"][0]["text"].startswith("RabbitMQ ")
    assert found["status pages"][0]["level"] == "ok"
    status, output, _ = doctor(collector)
    assert status == 0
    assert output.splitlines()[-1].startswith("0 faults, 0 warnings, ")


def test_the_heartbeats_of_every_daemon_reach_the_database(site, safe_postgresql):
    site.daemon("meter-collector").start().until_ready()
    libvirt = '[compute]\nlibvirt_uri = "test:///default"\n'
    others = [site.daemon(name, libvirt).start() for name in ("meter-api", "meter-compute", "meter-central")]

    def rows():
        return safe_postgresql.execute("SELECT name, content FROM daemon_heartbeat ORDER BY name", site.store)

    stored = until(lambda: len(rows()) == 4 and rows(), "the heartbeats of all daemons")
    beats = {name.partition("@")[0]: json.loads(text) for name, text in stored}
    assert list(beats) == ["meter-api", "meter-central", "meter-collector", "meter-compute"]
    assert {each["version"] for each in beats.values()} == {meter.__version__}
    assert {tuple(map(tuple, each["key_ids"])) for each in beats.values()} == {(KEY,)}
    assert "spool" not in beats["meter-api"]
    assert beats["meter-compute"]["spool"]["free_bytes"] > 0
    _, found = findings(others[0])
    assert {each["level"] for name in ("clocks", "versions", "keys", "spools") for each in found[name]} == {"ok"}
    for each in others:
        each.stop()

    def stopped():
        return [name.partition("@")[0] for name, text in rows() if json.loads(text).get("stopping")]

    assert until(lambda: len(stopped()) == 3 and stopped(), "the last heartbeats") == [
        *list(beats)[:2],
        "meter-compute",
    ]


def test_heartbeats_of_the_api_need_only_to_write_to_the_exchange(site, safe_postgresql, rabbitmq):
    site.daemon("meter-collector").start().until_ready()
    rabbitmq.ctl("add_user", "api", "of-the-api")
    rabbitmq.ctl("set_permissions", "-p", site.bus.rpartition("/")[2], "api", "^$", "^metering$", "^$")
    site.bus = site.bus.replace("guest:guest@", "api:of-the-api@")
    api = site.daemon("meter-api").start().until_ready()

    def names():
        return {name for (name,) in safe_postgresql.execute("SELECT name FROM daemon_heartbeat", site.store)}

    until(lambda: f"meter-api@{socket.gethostname()}" in names(), "the API's heartbeat")
    assert api.readiness()["degraded"] is False
    _, found = findings(api)
    [finding] = found["permissions"]
    assert finding["text"].startswith(
        "the user api may not configure queues (meter.inspection…), write to the exchange amq.default"
    )


def test_a_killed_collector_is_named(site, safe_postgresql):
    collector = running(site, safe_postgresql)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    collector.stop(signal.SIGKILL)
    safe_postgresql.execute(f"UPDATE daemon_heartbeat SET received_at = '{hour_ago.isoformat()}'", site.store)

    status, found = findings(collector)

    assert status == 2
    texts = [each["text"] for each in found["daemons"]]
    assert any(
        each.startswith(f"meter-collector@host1 is silent since {hour_ago:%Y-%m-%d %H:%M:%S} UTC") for each in texts
    )
    assert found["daemons"][-1]["advice"].startswith("start meter-collector first")
    assert any("meter.metering has no consumer" in each["text"] for each in found["queues"])


def test_a_full_queue_of_dead_letters_is_named_with_its_reasons(site, monkeypatch):
    small = f'{BASE}[bus]\nurl = "{site.bus}"\nmax_dead_letters = 2\n[store]\ndsn = "{site.store}"\n'
    with monkeypatch.context() as whole:
        whole.setattr(site, "bus", "")  # the text above has both
        whole.setattr(site, "store", "")
        collector = site.daemon("meter-collector", base=small).start().until_ready()
    other = signed_with("the key of another site, as long", 7)
    publish(site.bus, [other, {"exchange": "metering", "routing_key": "metering.x", "body": "not JSON"}])
    until(lambda: dead_lettered(collector) >= 2, "dead letters")

    status, found = findings(collector)

    assert status == 2
    texts = [each["text"] for each in found["dead letters"]]
    assert texts[0].startswith("metering.dead is full: 2 of [bus] max_dead_letters = 2")
    assert any("unverified" in each for each in texts)
    assert any("undecodable" in each for each in texts)


def test_two_sets_of_keys_are_named_on_the_host_with_the_other_one(site, safe_postgresql):
    running(site, safe_postgresql)
    agent = site.daemon("meter-compute", base=BASE.replace(SECRET, "the key of another site, as long"))

    status, found = findings(agent)

    assert status == 2
    [finding] = found["keys"]
    assert finding["level"] == "fault"
    assert f"meter-collector@host1 has default {KEY[1]}" in finding["text"]
    assert "[[signing.keys]]" in finding["advice"]


def test_a_hanging_database_is_a_fault_within_the_time_limit_and_the_rest_is_checked(site, safe_postgresql):
    collector = running(site, safe_postgresql)
    safe_postgresql.freeze()
    try:
        status, found = findings(collector)
    finally:
        safe_postgresql.thaw()
    assert status == 2
    assert found["database"][0]["level"] == "fault"
    assert found["broker"][0]["level"] == "ok"
    assert {found[name][0]["level"] for name in ("partitions", "daemons", "clocks")} == {"not checked"}


def test_a_user_without_permissions_is_told_which(site, safe_postgresql, rabbitmq):
    collector = running(site, safe_postgresql)
    vhost = site.bus.rpartition("/")[2]
    rabbitmq.ctl("set_permissions", "-p", vhost, "guest", "^meter", "^meter", ".*")

    status, found = findings(collector)

    assert status == 1
    assert found["permissions"][0]["text"].startswith("the user guest may not write to the exchange amq.default")


# --- why -----------------------------------------------------------------------------------------------------------


def reason(daemon, *arguments):
    status, output, errors = doctor(daemon, "why", *arguments, "--json")
    assert output, errors
    found = json.loads(output)
    return status, found["verdict"], {each["step"]: each for each in found["steps"]}


def test_why_follows_a_sample_to_its_row_and_to_who_may_see_it(site, safe_postgresql):
    collector = running(site, safe_postgresql)

    status, verdict, _ = reason(collector, "lamp", "lamp.power")
    assert status == 0
    assert verdict.startswith("arrives — the newest sample up to ")
    status, verdict, _ = reason(collector, "lamp", "lamp.power", "--as-project", "other")
    assert status == 1
    assert verdict.startswith("stops at: visible — the samples belong to p, so that the project other cannot see them")
    status, verdict, _ = reason(collector, "lamp", "lamp.powr")
    assert (status, verdict.partition(" — ")[0]) == (1, "stops at: installed")


def test_why_names_the_dead_letter(site, safe_postgresql):
    collector = running(site, safe_postgresql)
    publish(site.bus, [signed_with("the key of another site, as long", 7)])
    until(lambda: dead_lettered(collector), "the dead letter")
    before = (datetime.now(UTC) - timedelta(days=30)).isoformat()

    _, verdict, steps = reason(collector, "lamp", "lamp.power", "--at", before)

    assert verdict.startswith("stops at: accepted — dead letter ")
    assert "(unverified)" in verdict
    assert steps["accepted"]["advice"].startswith("meter-dead-letters show ")


def test_why_names_the_agent_that_was_not_running(site, safe_postgresql):
    collector = running(site, safe_postgresql)
    now = datetime.now(UTC).replace(microsecond=0)
    last, next_due = now - timedelta(minutes=40), now - timedelta(minutes=10)

    def run(number, first, last):
        members = {"agent_id": 1, "boot": str(uuid.uuid4()), "interval": 300, "first_sequence": number, "cycles": 3}
        times = {"first_due": first.isoformat(), "last_due": last.isoformat()}
        return CYCLE_RUN.format(json.dumps({**members, **times, "pollsters": ["cpu"]}))

    for statement in (
        "INSERT INTO agent (name, daemon, host) VALUES ('meter-compute@host1', 'meter-compute', 'host1')",
        "INSERT INTO meter_list (hash, meters) VALUES ('x', ARRAY['cpu', 'cpu_util'])",
        "INSERT INTO metered_resource (agent_id, pollster, interval, resource, project, meter_list_id, first_due)"
        f" VALUES (1, 'cpu', 300, 'web-1', 'p', 1, '{now - timedelta(hours=1)}')",
        run(1, now - timedelta(hours=1), last),
        run(2, next_due, now),
    ):
        safe_postgresql.execute(statement, site.store)

    at = (now - timedelta(minutes=20)).isoformat()
    _, verdict, _ = reason(collector, "web-1", "cpu", "--at", at)

    since, until_time = (f"{each:%Y-%m-%d %H:%M:%S} UTC" for each in (last, next_due))
    assert verdict == (
        f"stops at: polled — meter-compute@host1 is silent since {since} until {until_time} (agent not running)"
    )
    _, verdict, _ = reason(collector, "web-2", "cpu")
    assert verdict.startswith("stops at: polled — none of the agents that poll it (meter-compute@host1) has seen")


def test_why_names_the_gap_of_a_real_agent_that_was_killed(site, safe_postgresql):
    collector = site.daemon("meter-collector").start().until_ready()
    config = '[compute]\nlibvirt_uri = "test:///default"\n[polling]\ninterval_seconds = 2.0\njitter_seconds = 0.0\n'
    agent = site.daemon("meter-compute", config).start()
    name = f"meter-compute@{socket.gethostname()}"

    def newest_cycle():
        [*_, (last,)] = safe_postgresql.execute("SELECT last_due FROM cycle_run ORDER BY last_due", site.store)
        return last

    def silence():
        return f"stops at: polled — {name} is silent since {newest_cycle():%Y-%m-%d %H:%M:%S} UTC"

    until(lambda: reason(collector, DOMAIN, "cpu")[1].startswith("arrives"), "samples of the domain")
    agent.stop(signal.SIGKILL)
    # What the agent had sent before it was killed can arrive until the verdict is asked for, and after.
    until(lambda: reason(collector, DOMAIN, "cpu")[1] == f"{silence()} (agent not running)", "the gap")

    silent, missing = silence(), newest_cycle() + timedelta(seconds=4)
    until(lambda: datetime.now(UTC) > missing + timedelta(seconds=4), "the end of the gap")
    assert silence() == silent
    agent.start()
    until(lambda: newest_cycle() > missing + timedelta(seconds=4), "cycles after the gap")
    _, verdict, _ = reason(collector, DOMAIN, "cpu", "--at", missing.isoformat())
    assert verdict.startswith(f"{silent} until ")
    assert verdict.endswith("(agent not running)")
