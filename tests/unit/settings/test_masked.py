"""No password of a URL or DSN is shown, whatever characters it has: what is shown does not depend on it."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from meter.settings.masked import KnownPasswords
from meter.settings.masked import masked
from meter.settings.masked import masked_settings
from meter.settings.masked import masked_urls

PRINTABLE = st.characters(exclude_categories=("C", "Z"))
WORDS = st.text(PRINTABLE, min_size=1, max_size=20)
"""Passwords of any printable characters but spaces."""

PHRASES = st.text(PRINTABLE | st.just(" "), min_size=1, max_size=20)
"""Passwords of any printable characters."""

QUOTED = (
    str,
    lambda text: repr(text)[1:-1],
    lambda text: repr(f"{text}'\"")[1:-4],
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
)
"""How a line may have a text: as it is, or with some characters escaped, as in quotation marks."""


@given(WORDS)
@example("it's")
@example('a"b')
@example("a<b>c")
@example("p@ss://w:rd@")
def test_password_of_any_url_in_a_line_is_masked(password):
    for quoted in QUOTED:
        line = f"cannot connect to {quoted(f'amqp://meter:{password}@rabbit1:5672/v')} as meter@host1, retrying"
        expected = f"cannot connect to {quoted('amqp://meter:***@rabbit1:5672/v')} as meter@host1, retrying"
        assert masked_urls(line) == masked(line) == expected


@given(PHRASES)
@example("a b@c d")
@example("'")
def test_password_of_a_configured_url_is_masked_in_any_line(password):
    for setting, form in ((password, password), (quote(password), password), (password, quote(password, safe=""))):
        known = KnownPasswords()
        known.add(f"postgresql://meter:{setting}@db1,db2/meter?sslmode=require")
        for quoted in QUOTED:
            line = f"{quoted(f'postgresql://meter:{form}@db1')} failed; so did meter-compute@host1 at 192.0.2.1:80"
            expected = f"{quoted('postgresql://meter:***@db1')} failed; so did meter-compute@host1 at 192.0.2.1:80"
            assert known.masked(line) == expected


@given(PHRASES)
@example("a&b")
@example("a b")
@example("\\'")
def test_password_of_a_dsn_of_keywords_is_masked(password):
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    for value in (f"'{escaped}'", escaped.replace(" ", "\\ ")):
        dsn = f"host=db password={value} user=meter"
        assert masked(dsn) == masked_settings(dsn) == "host=db password=*** user=meter"
        known = KnownPasswords()
        known.add(dsn)
        for quoted in QUOTED:
            assert known.masked(f"no {quoted(dsn)} here") == f"no {quoted('host=db password=*** user=meter')} here"


@given(WORDS)
def test_password_among_the_parameters_of_a_url_is_masked(password):
    url = f"postgresql://db/meter?password={quote(password, safe='')}&sslmode=require"
    assert masked(url) == "postgresql://db/meter?password=***&sslmode=require"


@given(PHRASES)
def test_password_of_a_url_that_is_a_setting_is_masked(password):
    assert masked_settings(f"amqp://meter:{password}@rabbit1/v") == "amqp://meter:***@rabbit1/v"


def test_dsn_whose_quotation_mark_is_not_closed_shows_nothing_after_it():
    assert masked("host=db password='a b user=meter") == "host=db password=***"


@pytest.mark.parametrize(
    "line",
    [
        "GET http://keystone:5000/v3 took 3 s for admin@example.org",
        '{"text": "http://keystone:5000/v3", "user": "admin@example.org"}',
        "qemu+ssh://root@host1/system has no domains",
        "the token = 5 is no secret of a log line",
    ],
)
def test_lines_without_a_password_stay(line):
    assert masked_urls(line) == line


def test_passwords_of_an_earlier_configuration_stay_masked_and_common_words_are_not_hidden():
    known = KnownPasswords()
    known.add("amqp://meter:meter@rabbit1/")
    known.add("amqp://meter:an other@rabbit1/")
    known.add("local:")
    assert known.masked("meter amqp://meter:meter@rabbit1/ meter") == "meter amqp://meter:***@rabbit1/ meter"
    assert known.masked("amqp://meter:an other@rabbit2/") == "amqp://meter:***@rabbit2/"
