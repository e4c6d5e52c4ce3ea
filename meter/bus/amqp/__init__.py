"""The bus on RabbitMQ: the only package that knows txAMQP.

From the outside in: :mod:`~meter.bus.amqp.bus` puts the parts together; :mod:`~meter.bus.amqp.publisher` and
:mod:`~meter.bus.amqp.consumer` each work on a channel that :mod:`~meter.bus.amqp.connection` keeps open;
:mod:`~meter.bus.amqp.topology` makes exchanges and queues; :mod:`~meter.bus.amqp.browser` looks through a queue for
``meter-dead-letters``; :mod:`~meter.bus.amqp.client` and
:mod:`~meter.bus.amqp.channel` are txAMQP's with what had to be put right in them; :mod:`~meter.bus.amqp.frames` and
:mod:`~meter.bus.amqp.tables` are what goes over the wire.
"""

from meter.bus.amqp.browser import Browser
from meter.bus.amqp.browser import Held
from meter.bus.amqp.bus import AmqpBus

__all__ = ["AmqpBus", "Browser", "Held"]
