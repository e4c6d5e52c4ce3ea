"""The bus: batches of metering messages, dead letters, masking of tokens, and the in-process bus. RabbitMQ is in :mod:`meter.bus.amqp`."""
