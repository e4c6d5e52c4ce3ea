"""The bus on RabbitMQ: the only package that knows txAMQP.

From the outside in: :mod:`~meter.amqp.bus` puts the parts together; :mod:`~meter.amqp.publisher` and
:mod:`~meter.amqp.consumer` each work on a channel that :mod:`~meter.amqp.connection` keeps open;
:mod:`~meter.amqp.topology` makes exchanges and queues; :mod:`~meter.amqp.browser` looks through a queue for
``meter-dead``; :mod:`~meter.amqp.client` and
:mod:`~meter.amqp.channel` are txAMQP's with what had to be put right in them; :mod:`~meter.amqp.frames` and
:mod:`~meter.amqp.tables` are what goes over the wire.
"""

from meter.amqp.browser import Browser
from meter.amqp.browser import Held
from meter.amqp.bus import AmqpBus

__all__ = ["AmqpBus", "Browser", "Held"]
