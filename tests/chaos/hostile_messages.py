"""Hostile messages among good ones, from a seed: what a collector does with them, and that the good ones are stored once.

``python -m tests.chaos hostile 5000`` sends five thousand; a second number is the seed.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import nullcontext
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import amqp
import psycopg2

from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.collector.notifications import NOTIFICATIONS_QUEUE
from tests.chaos.broker import channel
from tests.chaos.health_probe import HealthProbe
from tests.chaos.publisher import SAMPLES
from tests.chaos.publisher import cast_of
from tests.chaos.publisher import notification_of
from tests.chaos.site import NeverCame
from tests.chaos.site import until
from tests.system.daemons import SECRET
from tests.system.daemons import Daemon
from tests.system.daemons import House

GOOD_EVERY = 4
"""One good message after so many hostile ones."""

MAX_MEGABYTES = 300
"""By which a collector may grow: the bodies of the largest messages, decoded, and what the allocator keeps."""

QUEUES = ("meter.metering", NOTIFICATIONS_QUEUE, "meter.metering.waiting", f"{NOTIFICATIONS_QUEUE}.waiting")

STORED = """
SELECT resource.name, volume, count(*)
FROM sample JOIN series ON series.id = series_id JOIN resource ON resource.id = resource_id JOIN meter ON meter.id = meter_id
WHERE meter.name = 'chaos.cast' GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Hostile:
    """One message. ``dead``: it must be dead-lettered; others may also be counted, as duplicates or unwanted."""

    exchange: str
    routing_key: str
    body: bytes
    dead: bool = False
    properties: dict[str, Any] = field(default_factory=dict)


class HostileMessages:
    """Makes messages, the same ones for the same ``seed``."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self._sent: dict[int, tuple[str, str, bytes]] = {}
        self._makers: list[Callable[[], Hostile]] = [
            self._bytes,
            self._cut,
            self._envelope,
            self._cast,
            self._entries,
            self._altered,
            self._altered,
            self._repeated,
            self._huge,
            self._notification,
            self._notification,
            self._versioned,
            self._ceilometer,
            self._headers,
        ]

    def __iter__(self) -> Iterator[Hostile]:
        """Yield messages without end."""
        while True:
            self._number += 1
            yield self._random.choice(self._makers)()

    def good(self, number: int) -> tuple[str, str, bytes]:
        """Return exchange, routing key and body of a good message, the same one whenever it is asked for."""
        if number not in self._sent:
            self._sent[number] = cast_of(number, SECRET)
        return self._sent[number]

    @property
    def _key(self) -> str:
        return f"metering.hostile.{self._number}"

    def _metering(self, body: bytes, *, dead: bool = False, **properties: Any) -> Hostile:
        return Hostile("metering", self._key, body, dead, properties)

    # --- values ---

    def _leaf(self) -> Any:
        pick = self._random
        return pick.choice(
            [
                None,
                True,
                "",
                "\0",
                "\ud800",
                "é" * 300,
                "x" * 600,
                "gAAAAA" + "a" * 40,
                "token=abc",
                "../../etc/passwd",
                "'; DROP TABLE sample; --",
                -1,
                0,
                10**30,
                -(10**400),
                1.5e308,
                float("nan"),
                float("inf"),
                "2026-13-45T99:99:99",
                "9999-12-31T23:59:59-14:00",
                pick.random(),
                pick.randbytes(5).hex(),
            ]
        )

    def _value(self, levels: int = 3) -> Any:
        pick = self._random
        if not levels or pick.random() < 0.5:
            return self._leaf()
        if pick.random() < 0.5:
            return [self._value(levels - 1) for _ in range(pick.randint(0, 4))]
        names = ("a", "key", "password", "metering.x", "", "\0", "auth_token", "nova_object.name", "nova_object.data")
        return {pick.choice(names): self._value(levels - 1) for _ in range(pick.randint(0, 4))}

    def _deep(self) -> Any:
        value: Any = 1
        for _ in range(self._random.choice([10, 90])):
            value = {"a": [value]}
        return value

    def _good(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return a good cast, and its samples, which no other message has."""
        _, _, body = cast_of(10_000_000 + self._number, SECRET)
        content = json.loads(json.loads(body)["oslo.message"])
        return content, content["args"]["data"]

    @staticmethod
    def _sealed(content: Any) -> bytes:
        return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(content)}).encode()

    # --- messages ---

    def _bytes(self) -> Hostile:
        pick = self._random
        body = pick.choice(
            [b"", pick.randbytes(200), b"\xff\xfe" * 50, b"[" * 5000, b"{}", b"null", b'{"a":' * 3000, b"9" * 9000]
        )
        return self._metering(body, dead=True)

    def _cut(self) -> Hostile:
        content, _ = self._good()
        body = self._sealed(content)
        at = self._random.randrange(1, len(body) - 1)
        return self._metering(body[:at] + self._random.choice([b"", b"\xff", b"\0"]), dead=True)

    def _envelope(self) -> Hostile:
        inner = self._random.choice(
            [None, 5, [], {}, "", "{", "null", "[]", '{"a":1}', json.dumps({"oslo.message": "{}"})]
        )
        version = self._random.choice(["2.0", "2.9", "1.0", "3.0", None, [], {}, 2, 1e400])
        return self._metering(json.dumps({"oslo.version": version, "oslo.message": inner}).encode(), dead=True)

    def _cast(self) -> Hostile:
        method = self._random.choice(["record_metering_data", "other", None, [], {"a": 1}])
        content = {"method": method, "args": self._value(), "version": self._value(), "event_type": self._value(1)}
        return self._metering(self._sealed(content))

    def _entries(self) -> Hostile:
        content, _ = self._good()
        content["args"]["data"] = [self._value() for _ in range(self._random.randint(1, 30))]
        return self._metering(self._sealed(content), dead=True)

    def _altered(self) -> Hostile:
        """Return a cast with one sample that was changed after it was signed."""
        content, samples = self._good()
        fields = self._random.choice(samples)
        name = self._random.choice([*fields, "extra", ""])
        if self._random.random() < 0.3:
            fields.pop(name, None)
        else:
            fields[name] = self._value() if self._random.random() < 0.8 else self._deep()
        content["args"]["data"] = [fields]
        return self._metering(self._sealed(content))

    def _repeated(self) -> Hostile:
        """Return a good message that was or will be sent, with another volume or, now and then, as it is."""
        _, _, body = self.good(self._random.randint(1, max(1, self._number // GOOD_EVERY)))
        if self._random.random() < 0.3:
            return self._metering(body)
        content = json.loads(json.loads(body)["oslo.message"])
        for each in content["args"]["data"]:
            each["counter_volume"] = 10**6 + self._random.random()
        return self._metering(self._sealed(content), dead=True)

    def _huge(self) -> Hostile:
        content, [fields, *_] = self._good()
        pick = self._random
        fields["resource_metadata"] = pick.choice(
            [
                {f"k{number}": number for number in range(30_000)},
                {"a": "token=gAAAAA" * 40_000},
                {"a": "x" * 600_000},
                {"a": [[]] * 60_000},
                {"a": '\\"' * 100_000},
            ]
        )
        content["args"]["data"] = [fields] * pick.choice([1, 2])
        body = pick.choice(
            [self._sealed(content), json.dumps(content).encode(), json.dumps(content).encode()[:-3], b"[0," * 90_000]
        )
        return self._metering(body, dead=True)

    def _of_nova(self, content: dict[str, Any]) -> Hostile:
        body = self._sealed(content) if self._random.random() < 0.8 else json.dumps(content).encode()
        if self._random.random() < 0.1:
            body = body[: self._random.randrange(len(body))]
        return Hostile("nova", "notifications.info", body)

    def _notification(self) -> Hostile:
        _, _, body = notification_of(20_000_000 + self._number)
        content = json.loads(json.loads(body)["oslo.message"])
        target = self._random.choice([content, content["payload"], content["payload"]])
        for _ in range(self._random.randint(1, 4)):
            name = self._random.choice([*target, "metadata", "extra"])
            target[name] = self._value() if self._random.random() < 0.9 else self._deep()
        if self._random.random() < 0.1:
            content["payload"] = self._random.choice([self._value(), {f"k{n}": n for n in range(50_000)}])
        return self._of_nova(content)

    def _versioned(self) -> Hostile:
        data = {
            "uuid": "u",
            "flavor": {"nova_object.name": "F", "nova_object.data": self._value()},
            "metadata": self._value(),
        }
        payload = {
            "nova_object.name": self._leaf(),
            "nova_object.data": data if self._random.random() < 0.7 else self._value(),
        }
        content = {
            "message_id": f"hostile-{self._number}",
            "event_type": self._random.choice(
                ["instance.create.end", "instance.update", "metrics.update", "instance.exists"]
            ),
            "timestamp": "2026-11-22 12:00:00",
            "publisher_id": "nova-compute:host",
            "payload": payload,
            "_context_request_id": self._leaf(),
        }
        return self._of_nova(content)

    def _ceilometer(self) -> Hostile:
        _, samples = self._good()
        fields = self._random.choice(samples)
        fields[self._random.choice(list(fields))] = self._value()
        content = {
            "message_id": f"hostile-{self._number}",
            "event_type": self._random.choice(
                ["telemetry.polling", "telemetry.api", "metering", "metering.cpu", "other"]
            ),
            "timestamp": "2026-11-22 12:00:00",
            "publisher_id": "ceilometer.polling",
            "payload": self._random.choice(
                [{"samples": [fields]}, [fields], fields, self._value(), {"samples": self._value()}]
            ),
        }
        return self._metering(self._sealed(content))

    def _headers(self) -> Hostile:
        pick = self._random
        headers = {
            "meter-replayed": pick.choice([1, "x", -5, 2**40, "x" * 5000]),
            "meter-exchange": pick.choice(["", "x" * 3000, "é", "\x1b[31m"]),
            "meter-waited": pick.choice([True, "x"]),
            "x-death": pick.choice(["x", 5]),
            "nested": {"a": {"b": ["c", 1, True]}},
        }
        kept = dict(pick.sample(sorted(headers.items()), pick.randint(1, len(headers))))
        properties = {
            "application_headers": kept,
            "content_type": pick.choice(["text/plain", "application/octet-stream", "x" * 200, ""]),
            "content_encoding": pick.choice(["gzip", "utf-16", "", "é"]),
            "delivery_mode": pick.choice([1, 2]),
            "priority": pick.choice([0, 255]),
            "message_id": pick.choice(["", "x" * 255]),
        }
        return self._metering(
            pick.choice([b"\x1f\x8b" + pick.randbytes(50), b"{}", pick.randbytes(9)]), dead=True, **properties
        )


@dataclass(slots=True)
class Report:
    """What became of the messages; ``problems`` is empty if all is as promised."""

    hostile: int
    good: int
    kinds: Counter[str]
    megabytes: float
    health: HealthProbe | None
    seconds: float
    problems: list[str]

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        health = self.health
        line = (
            f"{self.hostile} hostile and {self.good} good messages in {self.seconds:.0f} s: dead letters {kinds};"
            f" memory +{self.megabytes:.0f} MB"
        )
        if health is not None:
            line += f"; {health.checks} health checks, the slowest took {health.slowest_seconds * 1000:.0f} ms"
        return "\n    ".join([line, *self.problems])


def run(count: int, seed: int, rabbitmq: Any, postgresql: Any, directory: Path, *, time_health: bool = False) -> Report:
    """Send ``count`` hostile messages, and good ones among them, to a collector of its own; return what became of them."""
    directory.mkdir(parents=True, exist_ok=True)
    url = rabbitmq.vhost()
    dsn = postgresql.dsn()
    house = House(directory, bus=url, store=dsn)
    collector = house.daemon("meter-collector")
    try:
        collector.start().until_ready()
        until(lambda: _exists(url, NOTIFICATIONS_QUEUE), "the queues")
        warm = _send(url, [Hostile(*cast_of(900_000, SECRET))])
        until(lambda: _stored(dsn), "the first samples")
        before = _megabytes(collector)
        began = time.monotonic()
        probe = HealthProbe(collector.status_port) if time_health else None
        problems: list[str] = []
        with probe or nullcontext():
            wanted_dead, good = _send_all(url, count, seed)
            deliveries = count + good + warm
            try:
                until(lambda: _deliveries(collector) >= deliveries and _waiting(url) == 0, "all deliveries", 300)
                until(lambda: len(_stored(dsn)) >= (good + warm) * SAMPLES, "all good samples", 60)
            except NeverCame as error:
                problems.append(f"{error}: {_deliveries(collector):.0f} of {deliveries} deliveries")
            # A delivery is counted when it begins; large ones take a while.
            letters = _dead_letters(url)
            with suppress(NeverCame):
                until(
                    lambda: not _missing(letters.extend(_dead_letters(url)) or letters, wanted_dead),
                    "dead letters",
                    120,
                )
        seconds = time.monotonic() - began
        problems += [*(probe.problems if probe else []), *_check(collector, dsn, letters, wanted_dead, good, warm)]
        grown = _megabytes(collector) - before
        if grown > MAX_MEGABYTES:
            problems.append(f"the collector has grown by {grown:.0f} MB")
        kinds = Counter(str(headers.get("meter-kind")) for headers in letters)
        return Report(count, good, kinds, grown, probe, seconds, problems)
    finally:
        house.close()


def _send_all(url: str, count: int, seed: int) -> tuple[set[str], int]:
    """Return the routing keys of the messages that must be dead-lettered, and the number of good messages."""
    wanted: set[str] = set()
    messages: list[Hostile] = []
    good = 0
    made = HostileMessages(seed)
    for number, hostile in zip(range(1, count + 1), made, strict=False):
        messages.append(hostile)
        if hostile.dead:
            wanted.add(hostile.routing_key)
        if number % GOOD_EVERY == 0:
            good += 1
            messages.append(Hostile(*made.good(good)))
        if len(messages) >= 100:
            _send(url, messages)
            messages.clear()
    _send(url, messages)
    return wanted, good


def _send(url: str, messages: list[Hostile]) -> int:
    with channel(url, confirms=True) as publishing:
        for each in messages:
            properties = {"content_type": "application/json", "delivery_mode": 2, **each.properties}
            message = amqp.Message(each.body, **properties)
            publishing.basic_publish(message, each.exchange, each.routing_key)
    return len(messages)


def _check(
    collector: Daemon, dsn: str, letters: list[dict[str, Any]], wanted_dead: set[str], good: int, warm: int
) -> Iterator[str]:
    if collector.process is None or collector.process.poll() is not None:
        yield "the collector has ended"
    if "Traceback" in collector.log:
        yield "traceback: " + collector.log[collector.log.index("Traceback") :][:3000]
    stored = _stored(dsn)
    sent = {
        f"cast-{number}-{each}": number
        for number in (*range(1, good + 1), *[900_000] * warm)
        for each in range(1, SAMPLES + 1)
    }
    rows = Counter({resource: 0 for resource in sent})
    for (resource, volume), number in stored.items():
        rows[resource] += number
        if resource not in sent and int(resource.split("-")[1]) < 10_000_000:
            yield f"{resource} is stored and was not sent"
        if resource in sent and volume != sent[resource]:
            yield f"{resource} is stored with volume {volume}"
    for resource in sent:
        if rows[resource] != 1:
            yield f"{resource} is stored {rows[resource]} times"
    for headers in letters:
        if not headers.get("meter-reason") or not headers.get("meter-kind") or not headers.get("meter-id"):
            yield f"dead letter without reason: {headers}"
        if headers.get("meter-kind") == "defect":
            yield f"defect: {headers}"
    if missing := _missing(letters, wanted_dead):
        yield f"{len(missing)} messages are not dead-lettered: {missing[:5]}"


def _missing(letters: list[dict[str, Any]], wanted_dead: set[str]) -> list[str]:
    """Return the routing keys of ``wanted_dead`` that have no dead letter."""
    return sorted(wanted_dead - {str(headers.get("meter-routing-key")) for headers in letters})


def _stored(dsn: str) -> dict[tuple[str, float], int]:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(STORED)
            return {(resource, volume): count for resource, volume, count in cursor.fetchall()}
    finally:
        connection.close()


def _exists(url: str, queue: str) -> bool:
    try:
        with channel(url) as asking:
            asking.queue_declare(queue, passive=True)
    except amqp.NotFound:
        return False
    return True


def _waiting(url: str) -> int:
    with channel(url) as asking:
        return sum(int(asking.queue_declare(queue, passive=True).message_count) for queue in QUEUES)


def _deliveries(collector: Daemon) -> float:
    return sum(collector.metric(f'meter_deliveries_total{{queue="{queue}"}}') for queue in QUEUES[:2])


def _dead_letters(url: str) -> list[dict[str, Any]]:
    found = []
    with channel(url) as asking:
        while (message := asking.basic_get(DEAD_LETTER_QUEUE, no_ack=True)) is not None:
            found.append(dict(message.headers))
    return found


def _megabytes(collector: Daemon) -> float:
    assert collector.process is not None
    status = Path(f"/proc/{collector.process.pid}/status").read_text()
    [kilobytes] = re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.M)
    return int(kilobytes) / 1000
