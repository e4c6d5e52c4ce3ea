"""Tokens that ``meter-token`` makes."""

from __future__ import annotations

import re

from meter.api_token import digest_of
from meter.api_token import id_of
from meter.api_token import new_token


def test_token_has_a_prefix_its_id_and_256_random_bits() -> None:
    token = new_token()
    assert re.fullmatch(r"meter_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", token)
    assert id_of(token) == token[6:18]


def test_tokens_and_ids_differ() -> None:
    tokens = [new_token() for _ in range(1000)]
    assert len({*tokens, *map(id_of, tokens)}) == 2000


def test_what_is_no_token_has_no_id() -> None:
    token = new_token()
    for other in ("", "meter_", token[:-1], token + "a", token.upper(), f" {token}", f"{token}\n", token[6:18]):
        assert id_of(other) is None


def test_digest_is_sha256_of_any_text() -> None:
    assert digest_of("a").hex().startswith("ca978112")
    assert len(digest_of("\udcff")) == 32
