"""A proof never contains Ceilometer's signature of a message that nobody signed.

The attacker can change the database and read proofs, or can submit samples of their own project.
"""

from __future__ import annotations

from urllib.parse import quote

import pytest
import pytest_twisted

from meter.api import PostedSampleRules
from meter.api import SampleIngest
from meter.api.rendering import v2 as rendering
from meter.ceilometer_signature import signature
from meter.ceilometer_signature import signed_bytes
from meter.message import cast
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.integration.test_store_rollups import running
from tests.integration.test_store_verification import sample
from tests.security.test_forged_signatures import CEILOMETER
from tests.security.test_forged_signatures import SECRET
from tests.security.test_forged_signatures import Collector
from tests.signed import received_together
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.test_ingest import RecordingBus

KEYS = Keyring([SigningKey("key-1", SECRET, schemes=("meter", "ceilometer"))])


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.mark.parametrize(("meter", "tenant_meters"), [("custom.x", ("custom.*",)), ("cpu", ("*",))])
@pytest_twisted.ensureDeferred
async def test_proof_of_a_submitted_sample_signs_no_text_that_fits_a_message_of_another_project(meter, tenant_meters):
    rules = PostedSampleRules(declared=("cpu", "disk.*"), tenant_meters=tenant_meters)
    store = MemoryStore()
    ingest = SampleIngest(CEILOMETER, "openstack", RecordingBus(), store, rules)
    api = ApiClient(ingest=ingest, store=store, auth=TOKENS, keys=CEILOMETER)
    forged = {
        "counter_name": meter,
        "counter_type": "cumulative",
        "counter_unit": "ns",
        "counter_volume": 987654321,
        "message_id": "0195d3f0-1111-7abc-8def-00000000f0f0",
        "project_id": "green",
        "resource_id": "vm-of-green",
    }
    head = "".join(f"{name}{value}" for name, value in forged.items())
    posted = {
        "counter_name": head.removeprefix("counter_name") + "resource_metadata:a",
        "counter_type": "gauge",
        "counter_unit": "x",
        "counter_volume": 3,
        "resource_id": "shop",
        "source": "Zsourceopenstack",
        "user_id": "user-of-green",
        "timestamp": "2026-11-22T12:05:00",
    }
    headers = {"X-Auth-Token": "blue-token"}
    response = api.post(f"/v2/meters/{quote(posted['counter_name'], safe='')}?direct=True", [posted], **headers)
    assert response.status == 201
    proof = api(f"/v2/samples/{response.json[0]['message_id']}/proof", headers=headers).json
    text = signed_bytes(proof["message"]).decode()
    assert text.startswith(f"{head}resource_metadata:a")  # the text is also that of a message of the project green
    assert proof["batch"]["digests"] is not None
    assert "message_signature" not in proof["message"]
    value = text.removeprefix(f"{head}resource_metadata:a").rpartition("source")[0]
    message = forged | {
        "resource_metadata": {"a": value},
        "source": "openstack",
        "timestamp": "2026-11-22T12:05:00",
        "user_id": "user-of-green",
        "message_signature": proof["message"].get("message_signature"),
    }
    collector = Collector(CEILOMETER)
    await collector.receive(cast([message]))
    assert await collector.stored() == []


ALTERATIONS = [
    "UPDATE sample SET volume = 987654321 WHERE batch_position = 0",
    # Another message of the batch: the signature of the whole cannot be compared.
    "UPDATE sample SET volume = 987654321 WHERE batch_position = 1",
    "UPDATE sample SET batch_position = 1 - batch_position",
    "UPDATE signed_batch SET mac = decode(repeat('00', 32), 'hex')",
    "UPDATE signed_batch SET last = last + interval '1 year'",
    "DELETE FROM sample WHERE batch_position = 1",
]


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest_twisted.ensureDeferred
async def test_proof_from_an_altered_batch_has_no_signature_of_ceilometer(postgresql, database, alteration):
    messages = received_together([sample("cpu", 5, at=1), sample("cpu", 6, at=2)], KEYS)
    message = messages[0]
    async with running(database) as store:
        try:
            await store.write(messages)
            before = rendering.proof(await store.proof(message.message_id), KEYS)
            postgresql.execute(alteration, database)
            after = rendering.proof(await store.proof(message.message_id), KEYS)
        finally:
            postgresql.execute("TRUNCATE sample, signed_batch, unstored_entry", database)
    assert before.message["message_signature"] == signature(message.fields, SECRET)
    assert "message_signature" not in after.message


@pytest_twisted.ensureDeferred
async def test_signature_of_ceilometer_is_of_the_message_that_was_compared_not_of_the_row_read_before():
    """The row can be altered between the two queries of a proof."""
    [message] = received_together([sample("cpu", 5, at=1)], KEYS)
    store = MemoryStore()
    await store.write([message])
    found = await store.proof(message.message_id)
    found.message["counter_volume"] = 987654321
    assert rendering.proof(found, KEYS).message["message_signature"] == signature(message.fields, SECRET)
