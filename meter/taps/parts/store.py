"""The data store that ``[store]`` names, with the embedded PostgreSQL server if it is configured."""

from __future__ import annotations

from meter.completeness_store import waiting_rules
from meter.store import EmbeddedPostgres
from meter.store import LateSamples
from meter.store import PostgresStore
from meter.store import Retention
from meter.store import embedded_directory
from meter.taps.daemon import Daemon

RATING_CONNECTIONS = 3
"""One holds the lock of whoever rates, one works, one is for transactions beside it."""


def database_dsn(daemon: Daemon) -> str:
    """Return the DSN of the database, also of an embedded one."""
    dsn = daemon.config.store.dsn.get_secret_value()
    directory = embedded_directory(dsn)
    return dsn if directory is None else EmbeddedPostgres(daemon.reactor, directory, clock=daemon.reactor).dsn


def add_store(
    daemon: Daemon, *, reads: bool = False, writes: bool = False, reading_suffices: bool = False
) -> PostgresStore:
    """Add the data store that ``[store]`` names. A daemon that writes also upgrades and maintains its schema, if ``maintain`` says so.

    With ``reading_suffices`` the daemon is ready as long as it can read.
    """
    settings = daemon.config.store
    maintains = writes and settings.maintain
    rates = writes and bool(daemon.config.rating.price_directory)
    dsn = settings.dsn.get_secret_value()
    directory = embedded_directory(dsn)
    if directory is not None:
        server = EmbeddedPostgres(daemon.reactor, directory, clock=daemon.reactor)
        daemon.add(server)
        dsn = server.dsn
    store = PostgresStore(
        daemon.reactor,
        dsn,
        clock=daemon.reactor,
        migrate=maintains,
        readers=settings.readers if reads else int(rates),
        max_wait_seconds=settings.max_wait_seconds,
        writers=settings.writers if writes else 0,
        application_name=daemon.name,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        maintain=maintains,
        retention=Retention(
            days=settings.retention_days,
            meter_days=settings.retention_days_by_meter,
            rollup_days=settings.rollup_retention_days,
        ),
        finalize_after_seconds=settings.finalize_after_seconds,
        pack_after_days=settings.pack_after_days,
        replica_dsn=settings.replica_dsn.get_secret_value(),
        reading_suffices=reading_suffices,
        reads_tokens=reads and daemon.config.api.auth.mode == "tokens",
        late=LateSamples(
            daemon.config.completeness.late_after_seconds, every=daemon.config.completeness.late_samples == "all"
        ),
        waiting_rules=waiting_rules(daemon.config.completeness.wait_seconds),
        rating_connections=RATING_CONNECTIONS if rates else 0,
    )
    daemon.add(store)
    if maintains:
        daemon.health_metrics.count_voided_samples(lambda: store.maintenance.voided_samples)
    return store
