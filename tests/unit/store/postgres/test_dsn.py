"""DSNs that name several hosts: each host's parameters, and how they are described."""

from __future__ import annotations

import pytest

from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.dsn import described
from meter.store.postgres.dsn import one_by_one
from meter.store.postgres.dsn import parsed

URL = "postgresql://meter@a:1,b:2/db?target_session_attrs={}"


@pytest.mark.parametrize(
    ("dsn", "places"),
    [
        ("dbname=db", [{}]),
        ("host=a port=1", [{"host": "a", "port": "1"}]),
        ("host=a,b", [{"host": "a"}, {"host": "b"}]),
        ("host=a,b port=1", [{"host": "a", "port": "1"}, {"host": "b", "port": "1"}]),
        ("host=a,b port=1,2", [{"host": "a", "port": "1"}, {"host": "b", "port": "2"}]),
        ("hostaddr=::1,::2 port=5", [{"hostaddr": "::1", "port": "5"}, {"hostaddr": "::2", "port": "5"}]),
        ("host=a,b hostaddr=::1,::2", [{"host": "a", "hostaddr": "::1"}, {"host": "b", "hostaddr": "::2"}]),
        ("host=a,b port=1,2,3", [{"host": "a,b", "port": "1,2,3"}]),  # libpq says what is wrong with these
        ("host=a,b hostaddr=::1", [{"host": "a,b", "hostaddr": "::1"}]),
        ("port=1,2", [{"port": "1,2"}]),
    ],
)
def test_hosts_are_tried_one_by_one(dsn, places):
    parameters = parsed(dsn)
    rest = {name: value for name, value in parameters.items() if name == "dbname"}
    assert one_by_one(parameters) == [{**rest, **place} for place in places]


def test_prefer_standby_is_two_turns():
    turns = one_by_one(parsed(URL.format("prefer-standby")))
    assert [(each["host"], each["target_session_attrs"]) for each in turns] == [
        ("a", "standby"),
        ("b", "standby"),
        ("a", "any"),
        ("b", "any"),
    ]


@pytest.mark.parametrize(
    ("wanted", "read_only", "told"),
    [
        ("read-write", True, "primary"),
        ("read-write", False, "read-write"),
        ("any", True, "any"),
        ("standby", True, "standby"),
    ],
)
def test_readers_ask_for_a_primary_where_writers_ask_for_a_session_that_writes(wanted, read_only, told):
    parameters = connection_parameters(
        URL.format(wanted), statement_timeout_seconds=5, application_name="test", read_only=read_only
    )
    assert parameters["target_session_attrs"] == told


@pytest.mark.parametrize(
    ("dsn", "text"),
    [
        (URL.format("prefer-standby"), "PostgreSQL at a:1,b:2/db"),
        ("host=a,b port=1 dbname=db", "PostgreSQL at a:1,b:1/db"),
        ("host=a dbname=db password=s3cret", "PostgreSQL at a/db"),
        ("dbname=db", "PostgreSQL at the local socket/db"),
    ],
)
def test_each_host_is_described_with_its_port(dsn, text):
    assert described(parsed(dsn)) == text
