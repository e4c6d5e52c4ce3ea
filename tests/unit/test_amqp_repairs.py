"""The repairs of txAMQP 0.8.2, one by one. The larger ones are in tests/integration/test_amqp_traps.py."""

from __future__ import annotations

import importlib
import importlib.metadata
from io import BytesIO

import pytest
from txamqp.codec import Codec
from txamqp.connection import Frame

from meter.amqp import repairs


def test_any_other_version_than_the_repaired_one_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.9")
    with pytest.raises(ImportError, match=r"repairs txAMQP 0\.8\.2 and cannot work with 0\.9"):
        importlib.reload(repairs)


def test_the_protocol_is_described():
    classes = {klass.name: {method.name for method in klass.methods} for klass in repairs.PROTOCOL.classes}
    assert {"blocked", "unblocked"} <= classes["connection"]
    assert "nack" in classes["basic"]
    assert classes["confirm"] == {"select", "select-ok"}


def test_every_flag_that_means_no_answer_has_the_name_that_txamqp_knows():
    fields = {field.name for klass in repairs.PROTOCOL.classes for method in klass.methods for field in method.fields}
    assert "nowait" in fields
    assert "no-wait" not in fields


@pytest.mark.parametrize("kind", ["shortstr", "longstr"])
@pytest.mark.parametrize("text", ["", "Zoë", "日本" * 20, b"\xff\xfe"])
def test_text_is_counted_in_bytes(kind, text):
    stream = BytesIO()
    Codec(stream).encode(kind, text)
    width = 1 if kind == "shortstr" else 4
    data = text.encode() if isinstance(text, str) else text
    assert stream.getvalue() == len(data).to_bytes(width) + data
    assert Codec(BytesIO(stream.getvalue())).decode(kind) == text


@pytest.mark.parametrize("body", [b"", b"ascii", "Zoë".encode(), b"\xff"])
def test_a_body_is_bytes_whatever_it_holds(body):
    stream = BytesIO()
    repairs.Body(body).encode(Codec(stream))
    decoded = Frame.DECODERS[Frame.BODY].decode(repairs.PROTOCOL, Codec(BytesIO(stream.getvalue())))
    assert decoded.content == body


def test_tables_in_methods_have_values_of_every_type():
    stream = BytesIO()
    Codec(stream).encode_table({"list": [1, {"deep": None}], "negative": -1})
    assert Codec(BytesIO(stream.getvalue())).decode_table() == {"list": [1, {"deep": None}], "negative": -1}
