"""Nobody who lacks a signing key can make, alter or copy a metering message, even with publish rights on the broker.

The attacker sees signed messages, can publish to the broker, and can make the API sign samples of their own project.
"""

from __future__ import annotations

import hmac
import json
from datetime import UTC
from datetime import datetime

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.bus.batches import batch_publications
from meter.bus.dead_letters import DeadLetterPublisher
from meter.ceilometer_signature import signed_bytes
from meter.collector.samples import SampleConsumer
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.metrics import metrics_registry
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.message import cast
from meter.message import open_envelope
from meter.message import seal
from meter.outgoing import sign
from meter.query import SampleFilter
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.testing import MemoryStore
from tests.signed import outgoing

SECRET = b"a secret that the attacker does not know"
METER = Keyring([SigningKey("default", SECRET)])
"""What a new installation has."""

CEILOMETER = Keyring([SigningKey("agents", SECRET, schemes=("meter", "ceilometer"))])
"""What an installation with Ceilometer's agents has."""


@implementer(IPublisher)
class DeadQueue:
    def __init__(self):
        self.reasons = []

    async def publish(self, publication):
        self.reasons.append(publication.headers["meter-reason"])


class Collector:
    def __init__(self, keys):
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.dead = DeadQueue()
        self.consumer = SampleConsumer(
            self.store,
            keys,
            DeadLetterPublisher(self.dead, self.clock),
            self.clock,
            batch_samples=1000,
            batch_seconds=0.05,
            metrics=CollectingMetrics(metrics_registry("test")),
        )

    async def receive(self, *bodies):
        for body in bodies:
            delivery = Delivery(body=body, exchange="metering", routing_key="metering.cpu")
            done = Deferred.fromCoroutine(self.consumer.receive(delivery))
            self.clock.pump([0.05] * 20)
            await done

    async def stored(self):
        rows = await self.store.samples(SampleFilter(), 1000)
        return sorted((row.message_id, row.name, row.volume, row.project_id) for row in rows)


def sample(**changes):
    fields = {
        "name": "vcpus",
        "type": "gauge",
        "unit": "vcpu",
        "volume": 2.5e-05,
        "resource_id": "vm-1",
        "project_id": "acme",
        "user_id": "alice",
        "timestamp": datetime(2026, 11, 22, 17, tzinfo=UTC),
        "resource_metadata": {"vcpus": 16, "host": "h1"},
        "message_id": "00000000-0000-4000-8000-000000000001",
    } | changes
    return Sample(**fields)


def moved_exponent(message):
    return {**message, "counter_volume": 2.5, "e-05": ""}


def without_project(message):
    given = {**message, "message_id": message["message_id"] + "project_id" + message["project_id"]}
    del given["project_id"]
    return given


def digit_to_name(message):
    return {**message, "resource_metadata": {"vcpus1": 6, "host": "h1"}}


FORGERIES = [moved_exponent, without_project, digit_to_name]


@pytest.mark.parametrize("forge", FORGERIES)
@pytest_twisted.ensureDeferred
async def test_altered_message_with_a_valid_ceilometer_signature_is_refused(forge):
    seen = sign(sample(), METER, "openstack")
    forged = forge(seen)
    signed_text_is_the_same = signed_bytes(forged) == signed_bytes(seen)
    collector = Collector(METER)

    await collector.receive(cast([forged]))

    assert signed_text_is_the_same
    assert await collector.stored() == []
    [reason] = collector.dead.reasons
    assert "no key of [signing] accepts Ceilometer's signature alone" in reason


@pytest.mark.parametrize("forge", FORGERIES[:2])
@pytest_twisted.ensureDeferred
async def test_bytes_moved_between_members_are_refused_under_a_key_of_ceilometers_agents(forge):
    seen = sign(sample(), CEILOMETER, "openstack")
    collector = Collector(CEILOMETER)

    await collector.receive(cast([forge(seen)]), cast([seen]))

    assert await collector.stored() == [("00000000-0000-4000-8000-000000000001", "vcpus", 2.5e-05, "acme")]
    assert len(collector.dead.reasons) == 1


@pytest.mark.parametrize("metadata", [{}, {"host": "h1"}, {"Z": 1, "host": "h1"}])
@pytest_twisted.ensureDeferred
async def test_interval_and_run_of_an_agent_cannot_be_hidden_under_a_key_of_ceilometers_agents(metadata):
    # Without the batch signature, other names and values of the metadata have the same text.
    seen = sign(
        sample(resource_metadata={"_meter": {"interval": 300, "run": "hv1/7/vda"}, **metadata}), CEILOMETER, "openstack"
    )
    text = signed_bytes({"resource_metadata": seen["resource_metadata"]}).decode()
    forgeries = [
        {**seen, "resource_metadata": {text[len("resource_metadata:") : end]: text[end:]}}
        for end in (text.index("_meter") + 1, text.index("_meter") + 3, text.index("interval"), len(text))
    ]
    collector = Collector(CEILOMETER)

    await collector.receive(*(cast([forged]) for forged in forgeries))

    assert [signed_bytes(forged) == signed_bytes(seen) for forged in forgeries] == [True] * 4
    assert await collector.stored() == []
    assert len(collector.dead.reasons) == 4


@pytest_twisted.ensureDeferred
async def test_text_that_a_tenant_chose_gives_no_signature_of_another_projects_sample():
    # A crafted user_id contains the rest of another message; the attacker then cuts the signed text elsewhere.
    wanted = sign(sample(volume=1000, project_id="victim", resource_metadata={}), CEILOMETER, "openstack")
    text = signed_bytes(wanted).decode()
    head, tail = text.split("user_id")
    crafted = sample(
        name=head.removeprefix("counter_name").split("counter_type")[0],
        volume=1000,
        project_id="victimresource_idvm-1sourceopenstacktimestamp2026-11-22T17:00:00user_id" + tail,
        resource_metadata={},
    )
    posted = outgoing(crafted, CEILOMETER, "openstack").fields
    signer_output = sign(crafted, CEILOMETER, "openstack")
    cut = {
        **{name: value for name, value in signer_output.items() if name != "project_id"},
        "project_id": "victim",
        "resource_id": "vm-1",
        "source": "openstack",
        "timestamp": "2026-11-22T17:00:00",
        "user_id": text_after(signed_bytes(signer_output).decode(), "user_id"),
        "resource_metadata": {},
    }
    collector = Collector(CEILOMETER)

    await collector.receive(cast([cut]))

    assert signed_bytes(cut) == signed_bytes(signer_output)
    assert await collector.stored() == []
    assert posted["project_id"] == crafted.project_id


def text_after(text, label):
    return text.split(label, 1)[1]


@pytest_twisted.ensureDeferred
async def test_message_taken_from_a_signed_batch_and_altered_is_refused_and_its_neighbours_are_stored():
    samples = [
        sample(volume=n, message_id=f"00000000-0000-4000-8000-00000000000{n}", resource_id=f"vm-{n}") for n in (1, 2, 3)
    ]
    [publication] = batch_publications([outgoing(each, METER) for each in samples])
    content = open_envelope(publication.body)
    content["args"]["data"][1]["counter_volume"] = 2000
    collector = Collector(METER)

    await collector.receive(seal(content))

    assert [volume for _, _, volume, _ in await collector.stored()] == [1, 3]
    [reason] = collector.dead.reasons
    assert "message 1 of the batch differs from the one that key default signed" in reason


def without_batch_signature(content):
    del content[BATCH_SIGNATURE_FIELD]


def swapped(content):
    content["args"]["data"].reverse()


def of_another_batch(content):
    content[BATCH_SIGNATURE_FIELD]["id"] = "00000000-0000-4000-8000-00000000abcd"


def with_later_times(content):
    content[BATCH_SIGNATURE_FIELD]["last"] = "2027-01-01T00:00:00"


def with_one_digest_less(content):
    del content["args"]["data"][1]
    content[BATCH_SIGNATURE_FIELD]["positions"] = [1]


@pytest.mark.parametrize(
    "forge",
    [
        without_batch_signature,
        swapped,
        of_another_batch,
        with_later_times,
        with_one_digest_less,
    ],
)
@pytest_twisted.ensureDeferred
async def test_batch_that_is_not_as_it_was_signed_is_refused(forge):
    samples = [sample(volume=n, message_id=f"00000000-0000-4000-8000-00000000000{n}") for n in (1, 2)]
    [publication] = batch_publications([outgoing(each, METER) for each in samples])
    content = open_envelope(publication.body)
    forge(content)
    collector = Collector(METER)

    await collector.receive(seal(content))

    assert await collector.stored() == []
    assert collector.dead.reasons


@pytest_twisted.ensureDeferred
async def test_key_signs_only_the_meters_and_sources_that_it_is_limited_to():
    limited = SigningKey("host-1", SECRET, meters=("cpu", "disk.*"), sources=("host-1",))
    unlimited = Keyring([SigningKey("host-1", SECRET)])
    collector = Collector(Keyring([limited]))
    wanted = [("cpu", "host-1"), ("memory", "host-1"), ("disk.read.bytes", "host-2"), ("disk.read.bytes", "host-1")]

    for number, (name, source) in enumerate(wanted):
        given = sample(name=name, message_id=f"00000000-0000-4000-8000-00000000000{number}")
        [publication] = batch_publications([outgoing(given, unlimited, source)])
        await collector.receive(publication.body)

    assert [name for _, name, _, _ in await collector.stored()] == ["cpu", "disk.read.bytes"]
    assert ["may not sign" in reason for reason in collector.dead.reasons] == [True, True]


@pytest_twisted.ensureDeferred
async def test_digests_do_not_tell_a_volume_to_somebody_who_can_guess_it():
    """Digests of other tenants' samples are in proofs: without the key nobody can try volumes out."""
    [publication] = batch_publications([outgoing(sample(volume=7), METER)])
    content = open_envelope(publication.body)
    signature = content[BATCH_SIGNATURE_FIELD]
    [again] = batch_publications([outgoing(sample(volume=7), METER)])

    assert open_envelope(again.body)[BATCH_SIGNATURE_FIELD]["digests"] != signature["digests"]
    assert hmac.compare_digest(
        json.dumps(content["args"]["data"]), json.dumps(open_envelope(again.body)["args"]["data"])
    )
