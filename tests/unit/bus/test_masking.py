"""Secrets are masked, and similar values that are not secret stay readable."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import meter.bus.masking
from meter.bus.masking import _PLAIN_PAIR
from meter.bus.masking import _QUOTED_PAIR
from meter.bus.masking import _SECRET_WORDS
from meter.bus.masking import _STEM
from meter.bus.masking import FARTHEST_STEM
from meter.bus.masking import MASK
from meter.bus.masking import MAX_DEPTH
from meter.bus.masking import MAX_STRUCTURE_BYTES
from meter.bus.masking import WINDOW_CHARACTERS
from meter.bus.masking import _has_no_secret
from meter.bus.masking import _masked
from meter.bus.masking import _plain_hidden
from meter.bus.masking import _quoted_hidden
from meter.bus.masking import _replaced
from meter.bus.masking import is_secret_name
from meter.bus.masking import masked
from meter.bus.masking import masked_body
from meter.bus.masking import masked_text

NOTIFICATIONS = Path(__file__).parents[2] / "data" / "notifications"
FERNET = "gAAAAABo" + "aB3_-" * 30 + "=="
JWS = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhYmMifQ.c2lnbmF0dXJlLW9mLWl0"


def wrapped(content: Any) -> bytes:
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(content)}).encode()


@pytest.mark.parametrize(
    "name",
    [
        "auth_token", "_context_auth_token", "X-Auth-Token", "x_subject_token", "service_token", "token", "tokenId",
        "password", "admin_pass", "adminPass", "adminpass", "ADMIN_PASSWORD", "rootpass", "passwd", "pass", "passphrase",
        "secret", "client_secret", "secretKey", "api_key", "apiKey", "api-key", "private_key", "access_key",
        "signing_keys", "encryption_key", "auth", "provider_auth", "providerAuth", "guestPass", "Authorization", "credentials", "Set-Cookie", "user_data",
    ],
)  # fmt: skip
def test_secret_name_is_recognized_in_every_spelling(name: str) -> None:
    assert is_secret_name(name)
    assert masked({"a": [{name: "hunter2"}]}) == {"a": [{name: MASK}]}


@pytest.mark.parametrize(
    "name",
    [
        "key_name", "keypair", "keypairs", "public_key", "fingerprint", "encryption_key_id", "access_key_id", "key",
        "_meter_key_id", "message_signature", "routing_key", "auth_url", "auth-url", "user_auth_plugin", "pci_passthrough",
        "compass", "author", "monkey", "tenant_id", "user_id", "metadata", "keystone",
    ],
)  # fmt: skip
def test_name_of_a_key_identifier_is_not_secret(name: str) -> None:
    assert not is_secret_name(name)
    assert masked({name: "hunter2"}) == {name: "hunter2"}


@pytest.mark.parametrize("value", [None, True, False, "", [], {}])
def test_empty_value_under_a_secret_name_is_not_masked(value: Any) -> None:
    assert masked({"password": value}) == {"password": value}


@pytest.mark.parametrize("value", ["a", 12345, 0, 1.5, ["a"], {"a": "b"}])
def test_any_other_value_under_a_secret_name_is_masked_as_a_whole(value: Any) -> None:
    assert masked({"password": value}) == {"password": MASK}


@pytest.mark.parametrize("pair", [{"key": "adminPass", "value": "x"}, {"name": "api_key", "value": "x"}])
def test_value_of_a_key_value_pair_is_masked_by_its_key(pair: dict[str, str]) -> None:
    assert masked([pair])[0]["value"] == MASK


def test_value_of_a_pair_with_another_key_is_not_masked() -> None:
    assert masked({"key": "purpose", "value": "exercise"}) == {"key": "purpose", "value": "exercise"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FERNET, MASK),
        (f"got {FERNET}, sorry", f"got {MASK}, sorry"),
        (JWS, MASK),
        ("Authorization: Bearer abcdefgh12345", f"Authorization: {MASK} {MASK}"),
        ("amqp://nova:hunter2@10.0.0.1:5672/v", f"amqp://{MASK}@10.0.0.1:5672/v"),
        ("X-Auth-Token: abc def", f"X-Auth-Token: {MASK} def"),
        ("http://a/?token=abc&x=1", f"http://a/?token={MASK}&x=1"),
        ('{"adminPass": "a\\"b", "x": 1', f'{{"adminPass": "{MASK}", "x": 1'),
        ("{'password': 'a b', 'x': 1}", f"{{'password': '{MASK}', 'x': 1}}"),
        ('{"password": 1234}', f'{{"password": "{MASK}"}}'),
        (r'{"m": "{\"auth_token\": \"a\\\"b\", \"x\": 1}"', rf'{{"m": "{{\"auth_token\": \"{MASK}\", \"x\": 1}}"'),
        ('{"password": "cut off in the mid', f'{{"password": "{MASK}'),
        ('{"password": null, "token": ""}', '{"password": null, "token": ""}'),
        ("Zoë 日本 🚀 eyJ http://host/path", "Zoë 日本 🚀 eyJ http://host/path"),
        ("", ""),
    ],
)
def test_text_that_is_not_json_is_masked_by_its_form(text: str, expected: str) -> None:
    assert masked_text(text) == expected


def test_json_inside_a_text_is_masked() -> None:
    inner = json.dumps({"a": json.dumps({"password": "hunter2", "b": 1})})
    assert json.loads(json.loads(masked({"x": inner})["x"])["a"]) == {"password": MASK, "b": 1}


@pytest.mark.parametrize("enveloped", [True, False])
def test_token_published_by_nova_is_masked_and_nothing_else(enveloped: bool) -> None:
    content = json.loads((NOTIFICATIONS / "nova.scheduler.select_destinations.start.json").read_text())["message"]
    body = masked_body(wrapped(content) if enveloped else json.dumps(content).encode())
    assert b"gAAAA" not in body
    kept = json.loads(body)
    kept = json.loads(kept["oslo.message"]) if enveloped else kept
    content["payload"]["request_spec"]["instance_properties"]["pci_requests"]["_context"]["auth_token"] = MASK
    assert kept == content


def test_body_without_secrets_is_unchanged_byte_for_byte() -> None:
    body = b' { "a" : 1e2, "b": "\\u00eb", "n": 123456789012345678901234567890, "a": 2 } '
    assert masked_body(body) == body


def test_secret_under_a_repeated_name_is_masked() -> None:
    assert b"hunter2" not in masked_body(b'{"password": "hunter2", "password": null}')


def test_bytes_that_are_not_utf8_survive_masking() -> None:
    assert masked_body(b"\xff\x00 password=hunter2 \xfe") == b"\xff\x00 password=*** \xfe"


def test_too_deeply_nested_value_is_masked_as_a_whole() -> None:
    assert b"hunter2" not in masked_body(b'{"a":' * 500 + b'"hunter2"' + b"}" * 500)
    assert b"hunter2" not in masked_body(b'{"a":' * 5000 + b'{"token":"hunter2"}' + b"}" * 5000)


def test_large_body_is_masked() -> None:
    filling = "x" * MAX_STRUCTURE_BYTES
    assert b"hunter2" not in masked_body(wrapped({"filling": filling, "adminPass": "hunter2"}))


@pytest.mark.parametrize(
    "hostile",
    [
        "token",
        'token"',
        '"token":"',
        "token ",
        "pass_",
        "eyJ",
        "eyJaaaaaaaa.",
        "gAAAAA ",
        "://a:",
        "Bearer ",
        "\\",
        "[",
    ],
)
def test_masking_of_hostile_text_is_fast(hostile: str) -> None:
    # Half a second, where the time grows with the length; hours, where it grows with its square.
    masked_body((hostile * 2_000_000)[:2_000_000].encode())
    masked_body(("password" + hostile * 2_000_000)[:2_000_000].encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["auth_token", "key", "value"]), inner),
    max_leaves=20,
)


@dataclass
class Account:
    password: object


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (({"password": "hunter2"}, 1), ({"password": MASK}, 1)),
        ({"a": [({"password": "hunter2"},)]}, {"a": [({"password": MASK},)]}),
        ({"a": ("token=hunter2",)}, {"a": (f"token={MASK}",)}),
        ({"a": {"token=hunter2"}}, {"a": [f"token={MASK}"]}),
        ({"a": frozenset({"token=hunter2"})}, {"a": [f"token={MASK}"]}),
        ({"a": Account("hunter2")}, {"a": {"password": MASK}}),
        ({"a": (Account("hunter2"),)}, {"a": ({"password": MASK},)}),
        (MappingProxyType({"password": "hunter2"}), {"password": MASK}),
        ({"a": MappingProxyType({"password": ("hunter2",)})}, {"a": {"password": MASK}}),
    ],
)  # fmt: skip
def test_secret_in_what_is_written_as_json_is_masked(value: Any, expected: Any) -> None:
    assert masked(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        (1, "a"),
        {"a": {1}},
        Account(None),
        {"password": ()},
        {"at": datetime.now(UTC)},
        MappingProxyType({"a": 1}),
        object(),
    ],
)
def test_value_that_is_no_json_and_has_no_secret_is_the_same(value: Any) -> None:
    assert masked(value) is value
    assert _masked(value, MAX_DEPTH) is value


@given(JSON)
def test_masking_is_idempotent(value: Any) -> None:
    once = masked(value)
    assert masked(once) == once


@given(JSON, st.sampled_from(["auth_token", "adminPass", "password"]))
def test_secret_is_masked_at_any_place(value: Any, name: str) -> None:
    body = wrapped({"payload": [value, {"deep": {name: "hunter2hunter2"}, "text": f"x {FERNET} y"}]})
    hidden = masked_body(body)
    assert b"hunter2" not in hidden
    assert b"gAAAA" not in hidden


@given(st.binary())
def test_masking_accepts_any_bytes(body: bytes) -> None:
    assert isinstance(masked_body(body), bytes)


@given(st.from_regex(re.compile(_SECRET_WORDS, re.ASCII | re.IGNORECASE), fullmatch=True))
def test_every_secret_word_contains_a_stem(word: str) -> None:
    stem = _STEM.search(word.lower())
    assert stem is not None
    assert stem.start() <= FARTHEST_STEM


PIECES = st.sampled_from(
    [
        "token",
        "passecret",
        "Encryption_Key",
        "admin_pass",
        "user-data",
        "auth",
        "İ",
        " ",
        '"',
        "'",
        "\\",
        ":",
        "=",
        "x",
        "7",
    ]
)


@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from(["", "." * 3000]))
def test_search_by_stems_finds_all_that_the_patterns_find(text: str, filling: str) -> None:
    text = text + filling + text
    quoted = _QUOTED_PAIR.sub(_quoted_hidden, text)
    assert _replaced(_QUOTED_PAIR, _quoted_hidden, text) == quoted
    assert _replaced(_PLAIN_PAIR, _plain_hidden, quoted) == _PLAIN_PAIR.sub(_plain_hidden, quoted)


NAMES = st.lists(
    st.sampled_from(
        [
            *(
                "token",
                "pass",
                "word",
                "wd",
                "phrase",
                "Secret",
                "credential",
                "cookie",
                "admin",
                "root",
                "user",
                "api",
            ),
            *("private", "Access", "auth", "Auth", "orization", "master", "session", "ssh", "Key", "keys", "data", "X"),
            *(
                "_",
                "-",
                ".",
                " ",
                "x",
                "7",
                "\u00fc",
                "\u0130",
                "to\u212aen",
                "\\u0074oken",
                "\n",
                "\b",
                '"',
                "'",
                "\\",
            ),
            *(":", "=", "{", "[", "://a:b@c", "://", "@", "/", "eyJ", "Bearer ", FERNET, "key", "name", "value"),
        ]
    ),
    max_size=6,
).map("".join)
LEAVES = NAMES | NAMES.map(lambda text: json.dumps({text: "hunter2"})) | st.none() | st.integers() | st.booleans()


@given(
    st.from_regex(re.compile(_SECRET_WORDS, re.ASCII | re.IGNORECASE), fullmatch=True),
    st.sampled_from(["", "x", "x_", "os-", "7"]),
    st.sampled_from(["", "x", "_x", "X", "-x", "\n"]),
)
def test_every_secret_word_is_found_before_walking(word: str, before: str, after: str) -> None:
    name = before + word + after
    values = ({name: "hunter2"}, [f"{name}: hunter2"], {"key": name, "value": "hunter2"}, json.dumps({name: "hunter2"}))
    for value in values:
        assert not _has_no_secret(value) or _masked(value, MAX_DEPTH) is value


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=8))
def test_value_that_is_not_walked_has_no_secret(value: Any) -> None:
    assert not _has_no_secret(value) or _masked(value, MAX_DEPTH) is value


@pytest.mark.parametrize("path", sorted(NOTIFICATIONS.glob("nova*.json")), ids=lambda path: path.stem)
def test_metadata_of_a_usual_notification_are_not_walked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = json.loads(path.read_text())["message"]["payload"]
    metadata = {name: payload[name] for name in ("display_name", "state", "image_ref_url") if name in payload}
    monkeypatch.setattr(meter.bus.masking, "_masked", None)
    assert masked(metadata) is metadata


def test_value_deeper_than_is_searched_is_masked_as_a_whole() -> None:
    value: Any = "x"
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    assert masked(value) is not value


class CountedPattern:
    """A pattern that counts its match attempts and its searches of a whole text."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.tries = self.searches = self.longest_search = 0

    def match(self, text: str, start: int, *limit: int) -> re.Match[str] | None:
        self.tries += 1
        return self._pattern.match(text, start, *limit)

    def search(self, text: str, first: int, limit: int) -> re.Match[str] | None:
        self.longest_search = max(self.longest_search, limit - first)
        return self._pattern.search(text, first, limit)

    def sub(self, hide: Callable[[re.Match[str]], str], text: str) -> str:
        self.searches += 1
        return self._pattern.sub(hide, text)


def test_masking_the_largest_body_does_not_block_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    notifications = b",".join(path.read_bytes() for path in sorted(NOTIFICATIONS.glob("*.json")))
    body = b"[%b]" % b",".join([notifications] * (8 * 1024**2 // len(notifications)))
    patterns = [CountedPattern(_QUOTED_PAIR), CountedPattern(_PLAIN_PAIR)]
    monkeypatch.setattr(meter.bus.masking, "_QUOTED_PAIR", patterns[0])
    monkeypatch.setattr(meter.bus.masking, "_PLAIN_PAIR", patterns[1])
    assert b"gAAAA" not in masked_body(body)
    assert [each.searches for each in patterns] == [0, 0], "of the whole text"
    assert all(0 < each.tries < len(body) // 8 for each in patterns), [each.tries for each in patterns]
    assert all(each.longest_search <= 2 * WINDOW_CHARACTERS for each in patterns)


def test_masking_returns_a_value_without_secrets_itself_and_modifies_none():
    open_, secret = {"a": [{"b": "c"}], "d": "e=f"}, {"a": [{"password": "hunter2"}], "z": 1}
    assert masked(open_) is open_
    assert masked(secret) == {"a": [{"password": MASK}], "z": 1}
    assert secret == {"a": [{"password": "hunter2"}], "z": 1}
