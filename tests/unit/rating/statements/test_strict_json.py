"""JSON that two readers could understand differently is refused."""

from __future__ import annotations

import pytest

from meter.rating.statements import strict_json
from meter.rating.statements.strict_json import decoded


def test_document_is_decoded():
    assert decoded('{"a": [1, "ü", null, true]}'.encode()) == {"a": [1, "ü", None, True]}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": 1, "b": {"total": "1", "total": "2"}}', "the member 'total' stands twice"),
        (b'{"a": 1.0}', "1.0 is not an integer"),
        (b'{"a": 1e3}', "1e3 is not an integer"),
        (b'{"a": NaN}', "NaN is not an integer"),
        (b'{"a": -Infinity}', "-Infinity is not an integer"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7 is 0xff"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (rb'{"a": "\ud800"}', "half of a surrogate pair"),
        (b"", "not JSON"),
        (b'{"a": 1} {"a": 2}', "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "integer"),
    ],
)
def test_ambiguous_document_is_refused(body, why):
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        decoded(body)


def test_surrogate_pair_is_a_character():
    assert decoded(rb'"\ud83d\udcbe"') == "💾"


def test_huge_document_is_refused(monkeypatch):
    monkeypatch.setattr(strict_json, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="has 11 bytes; at most 10 are read"):
        decoded(b'"123456789"')


def test_last_of_many_members_that_stands_twice_is_found_in_one_pass():
    members = ", ".join(f'"{number}": 0' for number in range(150_000))
    with pytest.raises(ValueError, match=r"the member '149999' stands twice"):
        decoded(f'{{{members}, "149999": 1}}'.encode())
