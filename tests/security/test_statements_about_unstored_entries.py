"""The collector never signs that a message was not stored if it is, or if the message that it got is not the one that was signed.

The attacker can publish to the broker, without a key: they replay batches with altered messages or another list of positions.
If the collector stated that a stored message was refused, its row could be deleted and no verification would miss it.
"""

from __future__ import annotations

import uuid

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.batch_signature import parse_batch_signature
from meter.bus.batches import batch_publications
from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.samples import SampleConsumer
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.metrics import metrics_registry
from meter.interfaces import Delivery
from meter.message import cast
from meter.message import metering_messages
from meter.message import open_envelope
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from tests.integration.test_store_rollups import running
from tests.integration.test_store_verification import look  # noqa: F401
from tests.integration.test_store_verification import sample
from tests.integration.test_store_verification import states
from tests.security.test_forged_signatures import DeadQueue
from tests.signed import outgoing

KEYS = Keyring([SigningKey("key-1", b"a secret that the attacker does not know")])


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


class Receiving:
    """A collector with a store on PostgreSQL, and a batch of five messages that it may receive."""

    def __init__(self, store, execute):
        self.execute = execute
        self._consumer = SampleConsumer(
            store,
            KEYS,
            DeadLetterPublisher(DeadQueue(), reactor),
            reactor,
            batch_samples=1000,
            batch_seconds=0.05,
            metrics=CollectingMetrics(metrics_registry("test")),
        )
        samples = [sample("cpu", n, at=100 + n, message_id=str(uuid.uuid4())) for n in range(5)]
        [publication] = batch_publications([outgoing(each, KEYS) for each in samples])
        self.body = publication.body
        content = open_envelope(self.body)
        self.messages = metering_messages(content)
        self.signature = parse_batch_signature(content[BATCH_SIGNATURE_FIELD], 5)

    def receive(self, *bodies):
        """Receive deliveries that come together; fires once all are acknowledged."""
        deliveries = [Delivery(body=body, exchange="metering", routing_key="metering.cpu") for body in bodies]
        return gatherResults([Deferred.fromCoroutine(self._consumer.receive(each)) for each in deliveries])

    def altered(self, *positions, **changes):
        """Return a replay of the batch in which the messages at ``positions`` have ``changes``."""
        return cast(
            [each | changes if n in positions else each for n, each in enumerate(self.messages)], self.signature
        )

    def statements(self):
        return self.execute("SELECT position, reason FROM unstored_entry ORDER BY 1")


@pytest_twisted.async_yield_fixture
async def receiving(database, postgresql):
    async with running(database) as store:
        yield Receiving(store, lambda statement: postgresql.execute(statement, database))
        postgresql.execute("TRUNCATE sample, signed_batch, unstored_entry", database)


@pytest.mark.parametrize("changes", [{"counter_volume": 999}, {"counter_volume": "x"}, {"message_id": "another"}])
@pytest_twisted.ensureDeferred
async def test_altered_replay_does_not_excuse_the_deletion_of_stored_samples(receiving, look, changes):  # noqa: F811
    await receiving.receive(receiving.body)
    await receiving.receive(receiving.altered(1, 3, **changes))
    assert receiving.statements() == []
    assert states(await look(keys=KEYS, accept_unsigned=False)) == ["verified"] * 5
    receiving.execute("DELETE FROM sample WHERE batch_position IN (1, 3)")
    assert states(await look(keys=KEYS, accept_unsigned=False)).count("missing") == 2


@pytest_twisted.ensureDeferred
async def test_altered_message_that_arrives_before_the_signed_one_does_not_excuse_its_deletion(receiving, look):  # noqa: F811
    await receiving.receive(receiving.altered(1, 3, counter_volume=999))
    assert receiving.statements() == []
    assert "missing" in states(await look(keys=KEYS, accept_unsigned=False))
    await receiving.receive(receiving.body)
    assert states(await look(keys=KEYS, accept_unsigned=False)) == ["verified"] * 5


@pytest_twisted.ensureDeferred
async def test_same_batch_with_another_list_of_positions_makes_no_duplicates(receiving, look):  # noqa: F811
    again = cast(receiving.messages, receiving.signature.only(range(5)))
    backwards = cast(receiving.messages[::-1], receiving.signature.only(range(4, -1, -1)))
    await receiving.receive(receiving.body, again, backwards)
    await receiving.receive(again, receiving.body)
    assert receiving.statements() == []
    receiving.execute("DELETE FROM sample WHERE batch_position = 2")
    assert states(await look(keys=KEYS, accept_unsigned=False)).count("missing") == 1
