"""Repairs of txAMQP 0.8.2, the last release of a library that nobody maintains: made when this module is imported.

Each repair names its symptom and the test that fails without it. What is wrong with whole objects of the library, its
client and its channel, is put right by the subclasses in :mod:`meter.amqp.client`.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from typing import Any

from txamqp import spec
from txamqp.codec import Codec
from txamqp.connection import Body as UnrepairedBody
from txamqp.connection import Frame

from meter.amqp.tables import table_bytes
from meter.amqp.tables import table_from
from meter.amqp.tables import text_or_bytes

REPAIRED_VERSION = "0.8.2"

if version("txAMQP") != REPAIRED_VERSION:
    raise ImportError(f"meter.amqp repairs txAMQP {REPAIRED_VERSION} and cannot work with {version('txAMQP')}")

# txAMQP 0.8.2 is distributed without a protocol description: AMQFactory() fails with "unknown url type".
# Test: tests/unit/test_amqp_repairs.py, the protocol is described.
PROTOCOL = spec.load_string(files(__package__).joinpath("protocol.xml").read_bytes(), "protocol.xml")


class Body(UnrepairedBody):
    """A piece of a message's body, always bytes. Defining the class registers it as the decoder of body frames.

    txAMQP 0.8.2 decodes bodies as text where it can, counts characters where the header counted bytes, and waits for
    the rest for ever: the first body with an umlaut stops the consumer, the next message closes its channel.
    Test: tests/integration/test_amqp_traps.py, a body that is not ASCII arrives.
    """

    type = Frame.BODY

    def encode(self, codec: Any) -> None:
        """Write the piece with its length in bytes."""
        codec.encode_longbytes(self.content)

    @staticmethod
    def decode(spec: Any, codec: Any) -> Body:
        """Read one piece."""
        return Body(codec.decode_longbytes())


def _write_text(self: Any, length_format: str, text: str | bytes) -> None:
    """Write text with its length in bytes.

    txAMQP 0.8.2 writes the length in characters: RabbitMQ closes the connection with 501 FRAME_ERROR.
    Test: tests/unit/test_amqp_repairs.py, text is counted in bytes.
    """
    data = text.encode() if isinstance(text, str) else text
    self.pack(length_format, len(data))
    self.write(data)


def _read_text(self: Any, length_format: str) -> str | bytes:
    size = self.unpack(length_format)
    return text_or_bytes(self.read(size)) if size else ""


def _write_table(self: Any, table: dict[str, Any]) -> None:
    """Write a table with values of every type.

    txAMQP 0.8.2 writes text and unsigned numbers only; whatever else is in a header ends its writer while heartbeats
    go on: the connection looks alive and sends nothing. Test: tests/integration/test_amqp_traps.py, headers of every
    type go there and back.
    """
    self.write(table_bytes(table))


def _read_table(self: Any) -> dict[str, Any]:
    """Read a table with values of every type.

    txAMQP 0.8.2 reads four of them; a message that was dead-lettered (``x-death`` is an array) or redelivered by a
    quorum queue (``x-delivery-count`` has 64 bits) closes the connection. Test: tests/integration/test_amqp_traps.py,
    a dead-lettered message arrives with its history.
    """
    size = self.decode_long()
    return table_from(self.read(size)) if size else {}


Codec.enc_str = _write_text
Codec.dec_str = _read_text
Codec.encode_table = _write_table
Codec.decode_table = _read_table
