"""Another program on the bus: publishes casts and notifications with confirms, and writes down what was confirmed.

``publisher.py URL JOURNAL SECRET``: until SIGTERM, each tenth of a second a cast with samples of resources
``cast-N-1`` to ``cast-N-10`` and a notification about instance ``uuid(N)``, every third of them twice. What is not
confirmed, or comes back because no queue wants it, is published again, as it is, until it is confirmed. A line of the
journal is an N of which both were confirmed.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC
from datetime import datetime
from itertools import cycle
from pathlib import Path

import amqp
from amqp.exceptions import MessageNacked

from meter.bus.amqp.hosts import broker_addresses
from meter.bus.batches import batch_publications
from meter.outgoing import Signer
from meter.sample import Sample
from meter.signing_keys import keyring
from tests.chaos.broker import connected

SAMPLES = 10
SECONDS = 0.1
NOTIFICATION = Path(__file__).parents[1] / "data/notifications/nova.compute.instance.create.end.json"


class Sender:
    """A connection that is made anew after any trouble, to the next host if there are several."""

    def __init__(self, url: str) -> None:
        self._addresses = cycle(broker_addresses(url))
        self._connection: amqp.Connection | None = None

    def send(self, exchange: str, routing_key: str, body: bytes) -> bool:
        """Return whether the broker has confirmed."""
        try:
            connection = self._connected()
            channel = connection.channel(1)
            message = amqp.Message(body, content_type="application/json", delivery_mode=2)
            channel.basic_publish_confirm(message, exchange, routing_key, mandatory=True, confirm_timeout=5)
        except (amqp.AMQPError, MessageNacked, OSError):
            self.close()
            return False
        return True

    def _connected(self) -> amqp.Connection:
        if self._connection is None:
            self._connection = connected(next(self._addresses), confirms=True)
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(amqp.AMQPError, OSError):
                connection.collect()


def cast_of(number: int, secret: str) -> tuple[str, str, bytes]:
    now = datetime.now(UTC)
    samples = [
        Sample(
            name="chaos.cast",
            type="gauge",
            unit="1",
            volume=number,
            resource_id=f"cast-{number}-{each}",
            timestamp=now,
        )
        for each in range(1, SAMPLES + 1)
    ]
    signer = Signer(keyring([secret]), "chaos")
    [publication] = batch_publications([signer.message(sample) for sample in samples])
    return publication.exchange, publication.routing_key, publication.body


def notification_of(number: int) -> tuple[str, str, bytes]:
    message = json.loads(NOTIFICATION.read_text())["message"]
    message["message_id"] = str(uuid.UUID(int=number + (1 << 100)))
    message["payload"]["instance_id"] = str(uuid.UUID(int=number))
    body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()
    return "nova", "notifications.info", body


def main(url: str, journal: str, secret: str) -> None:
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    sender, number = Sender(url), 0
    with open(journal, "a", encoding="ascii") as confirmed:
        while not stopping:
            number += 1
            bodies = [cast_of(number, secret)] + [notification_of(number)] * (2 if number % 3 == 0 else 1)
            for body in bodies:
                while not sender.send(*body):
                    time.sleep(0.1)
            confirmed.write(f"{number}\n")
            confirmed.flush()
            time.sleep(SECONDS)
    sender.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
