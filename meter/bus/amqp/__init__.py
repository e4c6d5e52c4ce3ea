"""The bus on RabbitMQ: the only package that uses txAMQP.

From the outside in: :mod:`~meter.bus.amqp.bus` composes the parts; :mod:`~meter.bus.amqp.publisher` and
:mod:`~meter.bus.amqp.consumer` each use a channel that :mod:`~meter.bus.amqp.connection` keeps open;
:mod:`~meter.bus.amqp.topology` declares exchanges, queues and bindings; :mod:`~meter.bus.amqp.browser` reads a queue
for ``meter-dead-letters``, and :mod:`~meter.bus.amqp.inspection` looks at the broker for ``meter-doctor``;
:mod:`~meter.bus.amqp.client` and :mod:`~meter.bus.amqp.channel` replace txAMQP's classes
of the same kind; :mod:`~meter.bus.amqp.frames` and :mod:`~meter.bus.amqp.tables` are the wire format.
"""

from meter.bus.amqp.browser import Browser
from meter.bus.amqp.browser import UnackedMessage
from meter.bus.amqp.bus import AmqpBus
from meter.bus.amqp.inspection import BrokerInspection
from meter.bus.amqp.inspection import QueueState

__all__ = ["AmqpBus", "BrokerInspection", "Browser", "QueueState", "UnackedMessage"]
