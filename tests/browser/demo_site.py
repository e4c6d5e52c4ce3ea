"""A site with the demo cloud: a real collector and a real API over RabbitMQ and PostgreSQL, with tokens of two tenants and an administrator."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from typing import Any

import psycopg2
from kombu import Connection
from kombu import Exchange
from kombu import Producer

from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from tests.demo_cloud import LAB
from tests.demo_cloud import PRICES
from tests.demo_cloud import WEB
from tests.demo_cloud import DemoCloud
from tests.demo_cloud import demo_cloud
from tests.demo_cloud import names_file
from tests.system.daemons import SECRET
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.daemons import until

KEYS = Keyring([SigningKey("default", SECRET.encode())])

ADMIN, TENANT, OTHER = "an administrator's token", "token-of-the-web-shop", "token-of-the-laboratory"


@dataclass(frozen=True)
class DemoSite:
    """The site, and what is on it."""

    cloud: DemoCloud
    collector: Daemon
    api: Daemon

    def get(self, path: str, token: str = ADMIN) -> Any:
        """Return the JSON that the API answers."""
        status, body = fetch(self.api.api + path, **{"X-Auth-Token": token})
        assert status == 200, (path, status, body[:500])
        return json.loads(body)

    def rate(self, *words: str) -> str:
        """Run ``meter-rate`` with the collector's configuration and return what it prints."""
        command = [sys.executable, "-c", "from meter.commands.rate.command import main; main()"]
        ran = subprocess.run(
            [*command, "--config", str(self.collector.config_file), *words], capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
        return ran.stdout


def demo_site(house: House, *, days: int, hostile: bool = False) -> DemoSite:
    """Start the site and wait until everything is stored, final where it can be, and rated."""
    prices = house.directory / "prices.d"
    prices.mkdir()
    (prices / "prices.toml").write_text(PRICES, encoding="utf-8")
    names = names_file(house.directory / "names.toml")
    shared = f'[rating]\nprice_directory = "{prices}"\ninterval_seconds = 3.0\nsigning_key_file = "{house.directory}/statements.pem"\n[identities]\nfile = "{names}"\n'
    collector = house.daemon("meter-collector", shared).start().until_ready()
    api = house.daemon("meter-api", shared + _tokens()).start().until_ready()
    cloud = demo_cloud(house.directory / "agents", KEYS, datetime.now(UTC), days=days, hostile=hostile)
    _publish(house.bus, cloud)
    site = DemoSite(cloud, collector, api)
    until(
        lambda: _stored(collector, cloud) and _final(house.store),
        "the samples to be stored and summarized",
        seconds=600.0,
    )
    runs = 'meter_rating_step_succeeded_timestamp_seconds{step="budgets"}'
    seen = collector.metric(runs)
    until(lambda: collector.metric(runs) > seen, "the usage to be rated", seconds=300.0)
    return site


def _tokens() -> str:
    text = '[api.auth]\nmode = "tokens"\n'
    for token, who in (
        (ADMIN, 'admin = true\nuser_id = "operator"'),
        (TENANT, f'project_id = "{WEB}"\nuser_id = "ann"'),
        (OTHER, f'project_id = "{LAB}"\nuser_id = "bob"'),
    ):
        text += f'[[api.auth.tokens]]\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{who}\n'
    return text


def _publish(url: str, cloud: DemoCloud) -> None:
    with Connection(url) as connection:
        producer = Producer(connection.channel())
        for each in cloud.publications:
            exchange = Exchange(each.exchange, "topic", durable=True, passive=True, no_declare=True)
            producer.publish(
                each.body,
                exchange=exchange,
                routing_key=each.routing_key,
                headers=dict(each.headers),
                delivery_mode=2,
                content_type="application/json",
                content_encoding="utf-8",
            )


def _stored(collector: Daemon, cloud: DemoCloud) -> bool:
    """Whether the collector has taken all that was published."""
    _, body = fetch(f"http://127.0.0.1:{collector.status_port}/metrics")
    taken = sum(
        float(line.rsplit(" ", 1)[1])
        for line in body.decode().splitlines()
        if line.startswith("meter_deliveries_total{")
    )
    return taken >= len(cloud.publications)


def _final(dsn: str) -> bool:
    """Whether all hours with samples are final, but for the last two."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT count(DISTINCT date_trunc('hour', timestamp)) FROM sample WHERE timestamp < now() - interval '2 hours')"
                " <= (SELECT count(*) FROM final_period WHERE hours = 1)"
            )
            [row] = cursor.fetchall()
            return bool(row[0])
    finally:
        connection.close()
