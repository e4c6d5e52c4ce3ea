"""What the campaign asks of the broker besides starting and ending it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import amqp

from meter.bus.amqp.hosts import broker_addresses
from meter.bus.amqp.url import BrokerAddress
from tests.servers.rabbitmq import RabbitMQ


def connected(address: BrokerAddress, *, confirms: bool = False) -> amqp.Connection:
    """Return a connection that waits five seconds at most for whatever it wants."""
    connection = amqp.Connection(
        address.place,
        address.user,
        address.password,
        virtual_host=address.vhost,
        confirm_publish=confirms,
        connect_timeout=5,
        read_timeout=5,
        write_timeout=5,
    )
    connection.connect()
    return connection


@contextmanager
def channel(url: str, *, confirms: bool = False) -> Iterator[amqp.Channel]:
    """Provide a channel of a connection of its own, to the first host that answers."""
    addresses = broker_addresses(url)
    for address in addresses:
        try:
            connection = connected(address, confirms=confirms)
        except (amqp.AMQPError, OSError):
            if address == addresses[-1]:
                raise
        else:
            break
    try:
        yield connection.channel()
    finally:
        # Not close(), which waits for an answer that a broker in trouble does not give.
        connection.collect()


def waiting_messages(url: str, queue: str) -> int:
    """Return how many messages wait in ``queue``."""
    with channel(url) as asking:
        return int(asking.queue_declare(queue, passive=True).message_count)


def delete_if_empty(url: str, queue: str) -> bool:
    """Delete ``queue`` unless messages wait in it; return whether it was deleted."""
    try:
        with channel(url) as asking:
            asking.queue_delete(queue, if_empty=True)
    except (amqp.PreconditionFailed, amqp.NotFound):
        return False
    return True


def purge(url: str, queue: str) -> int:
    """Delete the messages that wait in ``queue``; return their number."""
    with channel(url) as asking:
        return int(asking.queue_purge(queue))


def limit_free_disk(rabbitmq: RabbitMQ, min_bytes: int) -> None:
    """Have the broker raise its disk alarm while the disk has less than ``min_bytes``."""
    rabbitmq.call(f"rabbit_disk_monitor:set_disk_free_limit({min_bytes}).")
