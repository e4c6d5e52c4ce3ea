"""A program of the earlier version that publishes samples of the past: ``past.py URL SECRET START WHAT``.

``history`` are samples of three meters of three projects over three days from START, every ten minutes. ``first``, ``late`` and ``later``
are samples of the meter ``late`` in the hours of one day, some in the same minutes: those of the latter arrive when these hours are final.
There are so many in a minute that totals by minute are made.
"""

import sys
import uuid
from datetime import datetime
from datetime import timedelta
from urllib.parse import unquote
from urllib.parse import urlsplit

import amqp

from meter.bus.batches import batch_publications
from meter.outgoing import Signer
from meter.sample import Sample
from meter.signing_keys import keyring

DAYS = 3
MINUTES = 10
PROJECTS = ("shop", "web", "lab")


def history(start):
    for step in range(DAYS * 24 * 60 // MINUTES):
        at = start + timedelta(minutes=step * MINUTES)
        for number, project in enumerate(PROJECTS, 1):
            resource = f"past-{number}"
            flavor = "small" if step < 200 else "large"
            yield sample("past.cpu", "cumulative", "ns", step * number * 1e9 / 3, resource, project, at, {"host": "h1"})
            yield sample(
                "past.memory", "gauge", "MB", 1024 * number + step % 7 / 10, resource, project, at, {"flavor": flavor}
            )
            yield sample("past.requests", "delta", "request", step % 5 + number, resource, project, at, {})


def of_late(start, minutes, second):
    for hour in range(24):
        for minute in minutes:
            for number in range(5):
                at = start + timedelta(hours=hour, minutes=minute, seconds=second + number * 10)
                yield sample("late", "delta", "request", minute + number + 1, f"late-{number}", "later", at, {})


def sample(name, type, unit, volume, resource, project, at, metadata):
    id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {resource} {at}"))
    return Sample(
        name=name,
        type=type,
        unit=unit,
        volume=volume,
        resource_id=resource,
        project_id=project,
        user_id="user",
        timestamp=at,
        resource_metadata=metadata,
        message_id=id,
    )


def main(url, secret, start, what):
    since = datetime.fromisoformat(start)
    samples = {
        "history": lambda: history(since),
        "first": lambda: of_late(since, (3, 33), 0),
        "late": lambda: of_late(since, (3, 12), 1),
        "later": lambda: of_late(since, (3, 47), 2),
    }[what]()
    signer = Signer(keyring([secret]), "past")
    where = urlsplit(url)
    connection = amqp.Connection(
        f"{where.hostname}:{where.port}",
        where.username,
        where.password,
        virtual_host=unquote(where.path[1:]),
        confirm_publish=True,
    )
    connection.connect()
    channel = connection.channel()
    messages = [signer.message(each) for each in samples]
    for first in range(0, len(messages), 100):
        for each in batch_publications(messages[first : first + 100]):
            body = amqp.Message(each.body, content_type="application/json", delivery_mode=2)
            channel.basic_publish_confirm(body, each.exchange, each.routing_key, mandatory=True)
    connection.close()
    print(len(messages))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
