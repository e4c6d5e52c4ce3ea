"""Values as filters of templates write them."""

from __future__ import annotations

from meter.api.web.formats import urlencode_all


def test_every_character_with_a_meaning_in_a_link_is_encoded() -> None:
    assert urlencode_all("/usage?a=b&c#d") == "%2Fusage%3Fa%3Db%26c%23d"
