"""``meter-dead-letters`` on a real broker and on disk: dead letters are listed, shown, replayed after a fix, never lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.agent.spool import Spool
from meter.bus.batches import batch_publications
from meter.bus.dead_letters import DeadLetterPublisher
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.message import seal
from meter.signing_keys import keyring
from tests.signed import outgoing
from tests.system.daemons import SECRET
from tests.system.daemons import fetch
from tests.system.daemons import until
from tests.system.test_keys import meter_verify
from tests.system.test_spine import PUBLISHER
from tests.system.test_spine import publish
from tests.system.test_spine import sample

METER_DEAD_LETTERS = str(Path(sys.executable).with_name("meter-dead-letters"))


def dead_lettered(daemon):
    """Return how many messages the daemon has dead-lettered, from its metrics."""
    _, body = fetch(f"http://127.0.0.1:{daemon.status_port}/metrics")
    lines = [line for line in body.decode().splitlines() if line.startswith("meter_dead_letters_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def meter_dead_letters(daemon, *arguments, status=0):
    """Run the command with a daemon's configuration; return its output."""
    ran = subprocess.run(
        [METER_DEAD_LETTERS, "--config", str(daemon.config_file), *arguments],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def listed(daemon, *arguments):
    return [json.loads(line) for line in meter_dead_letters(daemon, "list", "--json", *arguments).splitlines()]


def signed_with(secret, volume):
    return {
        "exchange": "metering",
        "routing_key": "metering.lamp.power",
        "body": batch_publications([outgoing(sample(volume), keyring([secret]))])[0].body.decode(),
    }


@pytest.fixture
def volumes(furnished, postgresql):
    """Return the stored volumes, ascending."""
    return lambda: [volume for (volume,) in postgresql.execute("SELECT volume FROM sample ORDER BY 1", furnished.store)]


def test_sample_signed_with_an_unknown_key_is_stored_after_the_key_is_added_and_it_is_replayed(furnished, volumes):
    new = "a secret that the collector does not know yet"
    collector = furnished.daemon("meter-collector").start().until_ready()
    notification = {"event_type": "compute.instance.create.end", "_context_auth_token": "hunter2", "payload": {}}
    publish(
        furnished.bus,
        [
            signed_with(new, 1),
            {"exchange": "metering", "routing_key": "metering.x", "body": "not JSON \u001b[2J"},
            signed_with(new, 2),
            {"exchange": "nova", "routing_key": "notifications.info", "body": seal(notification).decode()},
            signed_with("another", 3),
        ],
    )
    until(lambda: dead_lettered(collector) == 5, "five dead letters")

    text = meter_dead_letters(collector, "list")
    assert "the batch is signed with the key 'key-1'" in text
    assert "5 of 5 dead letters" in text
    dead_letters = listed(collector)
    assert [each["n"] for each in dead_letters] == [1, 2, 3, 4, 5]
    assert sorted(each["kind"] for each in dead_letters) == ["undecodable", "undecodable", *["unverified"] * 3]
    assert len({each["id"] for each in dead_letters}) == 5
    [garbage] = [each for each in dead_letters if each["kind"] == "undecodable" and not each["masked"]]
    assert r"not JSON \x1b[2J" in meter_dead_letters(collector, "show", str(garbage["n"]))

    # Without the fix they come back, with the number of replays.
    first = next(each["id"] for each in dead_letters if each["kind"] == "unverified")
    assert "replayed to meter.metering" in meter_dead_letters(collector, "replay", first[:8])
    until(lambda: dead_lettered(collector) == 6, "the dead letter to come back")
    dead_letters = listed(collector)
    [back] = [each for each in dead_letters if each["replayed"]]
    assert (len(dead_letters), back["replayed"]) == (5, 1)
    assert first not in {each["id"] for each in dead_letters}
    assert (back["exchange"], back["routing_key"]) == ("metering", "metering.lamp.power")

    collector.stop()
    fixed = furnished.daemon(
        "meter-collector",
        f'[signing]\n[[signing.keys]]\nid = "old"\nkey = "{SECRET}"\n[[signing.keys]]\nid = "new"\nkey = "{new}"\n',
        base=WITHOUT_KEY,
    )
    fixed.start().until_ready()
    replayed = meter_dead_letters(fixed, "replay", "--all", status=1)
    assert "4 replayed, 1 kept" in replayed
    assert "secrets in its body are masked" in replayed
    until(lambda: volumes() == [1, 2], "the two samples")
    until(lambda: dead_lettered(fixed) == 2, "the two dead letters that fail again")

    dead_letters = listed(fixed)
    [masked] = [each for each in dead_letters if each["masked"]]
    assert len(dead_letters) == 3
    assert "hunter2" not in meter_dead_letters(fixed, "show", masked["id"])
    assert "1 replayed, 0 kept" in meter_dead_letters(fixed, "replay", "--force", masked["id"])
    until(lambda: dead_lettered(fixed) == 3, "its return")
    meter_dead_letters(fixed, "discard", *(each["id"] for each in listed(fixed)))
    assert "no dead letters" in meter_dead_letters(fixed, "list")
    assert volumes() == [1, 2]


WITHOUT_KEY = """
[meter]
state_dir = "{directory}/state"
[status]
listen = "tcp:{status_port}:interface=127.0.0.1"
"""


def test_list_changes_nothing_even_when_it_is_killed(furnished):
    collector = furnished.daemon("meter-collector").start().until_ready()
    bodies = [f"{number:04} {'x' * 20_000}" for number in range(300)]
    publish(furnished.bus, [{"exchange": "metering", "routing_key": "metering.x", "body": body} for body in bodies])
    until(lambda: dead_lettered(collector) == 300, "the dead letters")
    collector.stop()
    before = listed(collector, "--limit", "1000")
    assert len(before) == 300

    killed = subprocess.Popen(
        [METER_DEAD_LETTERS, "--config", str(collector.config_file), "list", "--limit", "1000"], stdout=subprocess.PIPE
    )
    assert b"REASON" in killed.stdout.readline()
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    assert listed(collector, "--limit", "1000") == before
    taken = subprocess.run(
        [sys.executable, PUBLISHER, furnished.bus, "get", "metering.dead"], capture_output=True, text=True, timeout=180
    )
    assert [each["headers"]["meter-id"] for each in json.loads(taken.stdout)] == [each["id"] for each in before]
    assert sorted(each["body"] for each in json.loads(taken.stdout)) == bodies


@pytest_twisted.ensureDeferred
async def test_single_host_daemon_receives_replayed_dead_letters(house):
    meter = house.daemon(
        "meter", '[compute]\nlibvirt_uri = "test:///default"\n[polling]\ninterval_seconds = 1.0\n', base=SINGLE
    )
    spool = Spool(
        meter.directory / "s" / "dead-letters.spool",
        max_bytes=1_000_000,
        max_age_seconds=1e9,
        clock=Clock(),
        run=maybeDeferred,
    )
    late = signed_with(SECRET, 7)
    dead_letters = DeadLetterPublisher(_SpoolPublisher(spool), Clock(), source_queue="meter.metering")
    origin = Delivery(body=b"", exchange=late["exchange"], routing_key=late["routing_key"])
    await dead_letters.dead_letter(body=late["body"].encode(), reason="the key is not known yet", origin=origin)
    await spool.close()

    meter.start()
    until(lambda: "stored" in meter.log, "the first samples")
    assert "the key is not known yet" in meter_dead_letters(meter, "list")
    assert "1 replayed, 0 kept" in meter_dead_letters(meter, "replay", "--all")
    until(lambda: meter_verify(meter, "--meter", "lamp.power")[1]["verified"] == 1, "the replayed sample")
    assert "no dead letters" in meter_dead_letters(meter, "list")

    meter.stop()
    _, counts = meter_verify(meter)  # which starts the embedded database itself
    assert counts["verified"] > 1
    assert counts["failed"] == 0


SINGLE = f"""
[meter]
state_dir = "{{directory}}/s"
[signing]
key = "{SECRET}"
[status]
listen = ""
[api]
listen = "tcp:{{api_port}}:interface=127.0.0.1"
"""


@implementer(IPublisher)
class _SpoolPublisher:
    """A bus with the spool of dead letters as its only receiver."""

    def __init__(self, spool):
        self._spool = spool

    async def publish(self, publication):
        await self._spool.put([publication])
