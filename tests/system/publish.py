"""Publishes messages with kombu, or takes them from a queue: another program on the bus, run by the tests as one.

``publish.py URL`` publishes the list of ``{"exchange", "routing_key", "body"}`` on its standard input.
``publish.py URL get QUEUE`` prints what waits in a queue, as such a list with headers, and removes it.
``publish.py URL bind QUEUE EXCHANGE ROUTING_KEY`` declares a queue and a topic exchange, and binds them.
"""

import json
import sys

from kombu import Connection
from kombu import Exchange
from kombu import Producer
from kombu import Queue


def publish(connection, messages):
    producer = Producer(connection.channel())
    for message in messages:
        producer.publish(
            message["body"],
            exchange=Exchange(message["exchange"], "topic", durable=True, passive=True, no_declare=True),
            routing_key=message["routing_key"],
            content_type="application/json",
            content_encoding="utf-8",
            headers=message.get("headers", {}),
            delivery_mode=2,
        )


def take(connection, name):
    queue = Queue(name, no_declare=True).bind(connection.channel())
    while (message := queue.get(no_ack=True)) is not None:
        body = message.body
        yield {"headers": message.headers, "body": body.decode() if isinstance(body, bytes) else body}


if __name__ == "__main__":
    url, *rest = sys.argv[1:]
    with Connection(url) as connection:
        if rest and rest[0] == "bind":
            _, name, exchange, routing_key = rest
            Queue(name, Exchange(exchange, "topic", durable=True), routing_key).bind(connection.channel()).declare()
        elif rest:
            json.dump(list(take(connection, rest[1])), sys.stdout)
        else:
            publish(connection, json.load(sys.stdin))
