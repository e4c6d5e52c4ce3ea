"""The three roles that docs/install.rst makes: what the owner, the writer and the reader can do, and what they cannot."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from meter.message_ids import new_message_id
from meter.sample_identity import week_of
from meter.store.maintenance.partitions import partition_name
from tests.install.page import blocks
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.daemons import until
from tests.system.test_spine import cast_bodies
from tests.system.test_spine import publish
from tests.system.test_spine import sample

TOP = Path(__file__).parents[2]

PATHS = (
    "/v2/meters",
    "/v2/samples?limit=1",
    "/v2/resources",
    "/v2/meters/lamp/statistics",
    "/v2/completeness?group=meter",
    "/v2/identities",
    "/v2/statements",
    "/v2/completeness/agents",
    "/v2/completeness/gaps?start=2026-11-01&end=2026-11-02",
    "/api/v1/query?query=lamp",
)
"""Questions to all parts of the store."""


def statements() -> tuple[list[str], list[str]]:
    """Return the SQL of the page, one statement each: on any database, and on that of Meter."""
    [text] = [block.text for block in blocks() if "<<'SQL'" in block.text]
    sql = text.partition("<<'SQL'\n")[2].partition("\nSQL\n")[0]
    server, database = sql.split("\\connect meter\n")

    def split(part: str) -> list[str]:
        return [each.strip() for each in re.sub(r":'(\w+)'", r"'\1'", part).split(";") if each.strip()]

    return split(server), split(database)


@pytest.fixture(scope="module")
def database(postgresql: PostgreSQL) -> str:
    """Make the roles and the database of the page; return its address, without a user."""
    address = f"127.0.0.1:{postgresql.port}/meter"
    on_server, on_database = statements()
    for statement in on_server:
        postgresql.execute(statement)
    for statement in on_database:
        postgresql.execute(statement, f"postgresql://meter@{address}")
    return address


@pytest.fixture
def region(tmp_path: Path, rabbitmq: RabbitMQ) -> Iterator[House]:
    """Daemons that share a virtual host; each gets a role of its own."""
    house = House(tmp_path, bus=rabbitmq.vhost())
    yield house
    house.close()


def store(database: str, role: str, more: str = "") -> str:
    """Return the section of a daemon that connects as ``role``."""
    return f'[store]\ndsn = "postgresql://meter_{role}@{database}"\n{more}\n'


def refused(database: str, role: str, statement: str) -> bool:
    """Whether PostgreSQL refuses ``statement`` to ``role`` for lack of a privilege."""
    connection = psycopg2.connect(f"postgresql://meter_{role}@{database}")
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.errors.InsufficientPrivilege:
        return True
    finally:
        connection.close()
    return False


def query(database: str, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, as the owner."""
    connection = psycopg2.connect(f"postgresql://meter_owner@{database}")
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()


def test_each_role_suffices_for_its_daemon_and_can_do_no_more(region: House, database: str) -> None:
    shutil.copytree(TOP / "etc/prices.d", prices := region.directory / "prices")
    rating = f'[rating]\nprice_directory = "{prices}"\n'
    owner = region.daemon("meter-collector", store(database, "owner")).start().until_ready()
    writer = region.daemon("meter-collector", store(database, "writer", "maintain = false") + rating).start()
    reader = region.daemon("meter-api", store(database, "reader")).start()
    for daemon in (writer, reader):
        daemon.until_ready()

    owner.stop()
    # A week for which nobody has made a partition yet, and which the writer may not make.
    late = datetime.now(UTC) - timedelta(days=15)
    samples = [sample(n + 1, message_id=new_message_id(), name="lamp", timestamp=late) for n in range(300)]
    publish(region.bus, cast_bodies(samples))
    stored = 'meter_collected_samples_total{outcome="stored"}'
    until(lambda: writer.metric(stored) == 300, "the writer to store the samples")
    steps = "usage", "budgets", "statements"
    until(
        lambda: all(writer.metric(f'meter_rating_step_succeeded_timestamp_seconds{{step="{each}"}}') for each in steps),
        "the writer to rate",
    )

    assert not re.search("permission denied|must be owner", writer.log + reader.log)
    answers = {path: fetch(reader.api + path) for path in PATHS}
    assert {path: status for path, (status, _) in answers.items() if status != 200} == {}, answers
    assert [each["name"] for each in json.loads(answers["/v2/meters"][1])] == ["lamp"]

    owner.start().until_ready()
    week = f"SELECT count(*) FROM ONLY {partition_name(week_of(late))}"
    counted = "SELECT (SELECT count(*) FROM sample_default), (SELECT count(*) FROM sample)"
    until(lambda: query(database, counted) == [(0, 300)], "the owner to make the partition")
    assert query(database, week) == [(300,)]

    for role in ("writer", "reader"):
        assert refused(database, role, "CREATE TABLE lamp ()")
        assert refused(database, role, "ALTER TABLE statement DISABLE TRIGGER ALL")
        assert refused(database, role, "DROP TABLE sample")
        assert refused(database, role, "TRUNCATE sample")
    for table in ("sample", "api_token", "audit_entry", "statement"):
        assert refused(database, "reader", f"DELETE FROM {table}")
        assert refused(database, "reader", f"INSERT INTO {table} SELECT * FROM {table}")
    assert not refused(database, "reader", "SELECT count(*) FROM sample")


def test_the_writer_makes_tokens_and_the_reader_cannot(region: House, database: str) -> None:
    def create(role: str) -> subprocess.CompletedProcess[str]:
        daemon = region.daemon("meter-api", store(database, role))
        program = [sys.executable, "-c", "from meter.commands.tokens import main; main()"]
        command = [*program, "--config", str(daemon.config_file), "create", "--admin", "--reason", "test"]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    region.daemon("meter-collector", store(database, "owner")).start().until_ready()
    assert create("writer").returncode == 0
    assert "permission denied" in create("reader").stderr
