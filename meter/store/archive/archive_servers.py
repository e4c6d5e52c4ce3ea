"""Archive servers: PostgreSQL servers to which this database connects with postgres_fdw, by the name that an operator gives.

The server NAME is the foreign server ``meter_archive_NAME``, and its tables are the foreign tables ``archive_NAME`` and
``archive_NAME_checksums``. Passwords are in user mappings alone: one of the role that writes, and one of a role that only reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meter.store.archive.archive_sql import MAKE_FOREIGN_TABLES
from meter.store.archive.archive_sql import MAKE_REMOTE_TABLES
from meter.store.archive.archive_sql import REMOTE_SCHEMA
from meter.store.postgres.dsn import parsed
from meter.store.postgres.pool import Session

MAX_NAME = 30
NAME = re.compile(rf"[a-z][a-z0-9]{{0,{MAX_NAME - 1}}}")
PREFIX = "meter_archive_"

SERVER_OPTIONS = {
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "meter archive",
    "fetch_size": "100",
    "options": "-c bytea_output=hex -c synchronous_commit=on",
}
"""The options of foreign servers, unless a DSN names others: a server that is away is known to be after ten seconds at most."""

OF_SERVER = frozenset(SERVER_OPTIONS) - {"options", "fetch_size"} | {
    "host",
    "hostaddr",
    "port",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcrl",
    "ssl_min_protocol_version",
    "channel_binding",
    "gssencmode",
    "target_session_attrs",
}
OF_USER = frozenset({"user", "password", "sslcert", "sslkey"})
"""What a DSN of an archive server can name: options of the foreign server, and those of user mappings."""

SERVERS = """
SELECT substr(s.srvname, length(%(prefix)s) + 1), coalesce(o.host, o.hostaddr, 'the local socket'), o.port, o.dbname,
    (SELECT count(*) FROM archived_week w WHERE w.server = substr(s.srvname, length(%(prefix)s) + 1) AND w.lost_at IS NULL),
    (SELECT min(w.week) FROM archived_week w WHERE w.server = substr(s.srvname, length(%(prefix)s) + 1) AND w.lost_at IS NULL),
    (SELECT max(w.week) FROM archived_week w WHERE w.server = substr(s.srvname, length(%(prefix)s) + 1) AND w.lost_at IS NULL),
    (SELECT count(*) FROM archive_removal r WHERE r.server = substr(s.srvname, length(%(prefix)s) + 1))
FROM pg_foreign_server s CROSS JOIN LATERAL (
    SELECT max(option_value) FILTER (WHERE option_name = 'host') AS host,
        max(option_value) FILTER (WHERE option_name = 'hostaddr') AS hostaddr,
        max(option_value) FILTER (WHERE option_name = 'port') AS port,
        max(option_value) FILTER (WHERE option_name = 'dbname') AS dbname
    FROM pg_options_to_table(s.srvoptions)
) AS o
WHERE starts_with(s.srvname, %(prefix)s) ORDER BY 1
"""

OPTIONS = "SELECT option_name, option_value FROM pg_foreign_server s CROSS JOIN LATERAL pg_options_to_table(s.srvoptions) WHERE s.srvname = %s"

FDW = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'postgres_fdw'),
    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'),
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    current_user, current_database()
"""

IS_USED = "SELECT EXISTS (SELECT FROM archived_week WHERE server = %(name)s AND lost_at IS NULL) OR EXISTS (SELECT FROM archive_removal WHERE server = %(name)s)"


class ArchiveServerError(Exception):
    """An archive server cannot be used, made or removed so; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ArchiveServer:
    """An archive server: where it is, the number of weeks that it has, the first and the last, and what is still to be deleted there."""

    name: str
    host: str
    port: str | None
    database: str | None
    weeks: int
    first: Any
    last: Any
    removals: int


@dataclass(frozen=True, slots=True)
class ArchiveReader:
    """The role ``role`` of this database reads the archive as the user that ``parameters`` name, which can only read there."""

    role: str
    parameters: Mapping[str, str]


def foreign_table(name: str) -> str:
    """Return the name of the foreign table of the archive server ``name``; :class:`ArchiveServerError` if it cannot be one."""
    if not NAME.fullmatch(name):
        raise ArchiveServerError(
            f"{name!r} cannot be the name of an archive server: at most {MAX_NAME} lower-case letters and digits, a letter first"
        )
    return f"archive_{name}"


def checked(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """Return the ``parameters`` of a DSN; :class:`ArchiveServerError` if they are not enough, or are for something else."""
    if "user" not in parameters or "dbname" not in parameters:
        raise ArchiveServerError("the DSN of an archive server must name a user and a database")
    if unknown := sorted(parameters.keys() - OF_SERVER - OF_USER):
        raise ArchiveServerError(
            f"the DSN of an archive server cannot have {', '.join(unknown)}; it can have {', '.join(sorted(OF_SERVER | OF_USER))}"
        )
    return parameters


def archive_parameters(dsn: str, password: str) -> dict[str, str]:
    """Return the parameters of the ``dsn`` of an archive server, with ``password`` if it is not empty.

    :class:`ArchiveServerError` for a password in ``dsn``: command lines can be read by others.
    """
    try:
        parameters = checked(parsed(dsn))
    except ValueError as error:
        raise ArchiveServerError(str(error)) from error
    if "password" in parameters:
        raise ArchiveServerError("give the password by --password-file: the command line can be read by others")
    return {**parameters, "password": password} if password else {**parameters}


async def archive_servers(session: Session) -> list[ArchiveServer]:
    """Return all archive servers of this database."""
    return [ArchiveServer(*row) for row in await session.rows(SERVERS, {"prefix": PREFIX})]


async def require_server(session: Session, name: str) -> None:
    """Raise :class:`ArchiveServerError` if there is no archive server ``name``."""
    foreign_table(name)
    known = [each.name for each in await archive_servers(session)]
    if name not in known:
        raise ArchiveServerError(
            f"there is no archive server {name}: "
            + (
                f"the archive servers are {', '.join(known)}"
                if known
                else "meter-db archive-server add NAME DSN makes one"
            )
        )


async def has_tables(session: Session) -> bool:
    """Return whether the database of ``session`` has the tables of an archive."""
    [[exists]] = await session.rows("SELECT to_regclass(%s) IS NOT NULL", [f"{REMOTE_SCHEMA}.packed_samples"])
    return bool(exists)


async def make_remote_tables(session: Session, reader: str | None) -> bool:
    """Make the tables of an archive in the database of ``session``, unless it has them, and let the user ``reader`` read them.

    Return whether they were made.
    """
    [[exists, creatable, user, database]] = await session.rows(
        "SELECT to_regclass(%s) IS NOT NULL, to_regnamespace(%s) IS NOT NULL OR has_database_privilege(current_database(), 'CREATE'),"
        " current_user, current_database()",
        [f"{REMOTE_SCHEMA}.packed_samples", REMOTE_SCHEMA],
    )
    if not exists:
        if not creatable:
            raise ArchiveServerError(
                f"the user {user} may not make a schema in the database {database}: let its owner run CREATE SCHEMA {REMOTE_SCHEMA}"
                f' AUTHORIZATION "{user}" there'
            )
        await session.count(f"CREATE SCHEMA IF NOT EXISTS {REMOTE_SCHEMA}")
        await session.count(MAKE_REMOTE_TABLES)
    if reader is not None:
        await session.count(f"GRANT USAGE ON SCHEMA {REMOTE_SCHEMA} TO {_identifier(reader)}")
        await session.count(f"GRANT SELECT ON ALL TABLES IN SCHEMA {REMOTE_SCHEMA} TO {_identifier(reader)}")
    return not exists


async def require_postgres_fdw(session: Session) -> None:
    """Make the extension postgres_fdw if it is missing; :class:`ArchiveServerError` with what to do where that cannot be."""
    [[installed, available, superuser, user, database]] = await session.rows(FDW)
    if not installed:
        if not available:
            raise ArchiveServerError(
                "this PostgreSQL has no postgres_fdw: the embedded one never has it, and Debian's has it in its package postgresql."
                " Name a PostgreSQL server that has it in dsn of [store]"
            )
        if not superuser:
            raise ArchiveServerError(
                f"the extension postgres_fdw is missing: let a superuser run CREATE EXTENSION postgres_fdw and GRANT USAGE ON FOREIGN DATA"
                f' WRAPPER postgres_fdw TO "{user}" in the database {database}'
            )
        await session.count("CREATE EXTENSION IF NOT EXISTS postgres_fdw")
    [[usable]] = await session.rows("SELECT has_foreign_data_wrapper_privilege('postgres_fdw', 'USAGE')")
    if not usable:
        raise ArchiveServerError(
            f'let a superuser run GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO "{user}" in the database {database}'
        )


async def make_server(session: Session, name: str, parameters: Mapping[str, str], reader: ArchiveReader | None) -> None:
    """Make or change the archive server ``name``, in the transaction of ``session``: its foreign tables and user mappings."""
    archive, server = foreign_table(name), f"{PREFIX}{name}"
    await require_postgres_fdw(session)
    options = SERVER_OPTIONS | {key: value for key, value in parameters.items() if key in OF_SERVER}
    existing = dict(await session.rows(OPTIONS, [server]))
    if existing:
        changes = [f"DROP {key}" for key in existing.keys() - options.keys()]
        values = []
        for key, value in options.items():
            changes.append(f"{'SET' if key in existing else 'ADD'} {key} %s")
            values.append(value)
        await session.count(f"ALTER SERVER {server} OPTIONS ({', '.join(changes)})", values)
    else:
        listed = ", ".join(f"{key} %s" for key in options)
        await session.count(
            f"CREATE SERVER {server} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({listed})", [*options.values()]
        )
        await session.count(MAKE_FOREIGN_TABLES.format(archive=archive, server=server))
    await _map_user(session, server, "CURRENT_USER", parameters)
    if reader is not None:
        role = _identifier(reader.role)
        await _map_user(session, server, role, reader.parameters)
        await session.count(f"GRANT SELECT ON {archive}, {archive}_checksums TO {role}")


async def check_server(session: Session, name: str) -> None:
    """Read the tables of the archive server ``name`` through postgres_fdw; raises what that raises."""
    archive = foreign_table(name)
    for table in (archive, f"{archive}_checksums"):
        await session.rows(
            f"SELECT a.store_id FROM {table} a WHERE a.store_id = (SELECT id FROM store_identity) LIMIT 1"
        )


async def remove_server(session: Session, name: str) -> None:
    """Forget the archive server ``name``, which must have nothing of this store; its tables stay where they are."""
    await require_server(session, name)
    [[used]] = await session.rows(IS_USED, {"name": name})
    if used:
        raise ArchiveServerError(
            f"the archive server {name} has weeks of this store, or rows that are still to be deleted:"
            " meter-db status lists them; bring the weeks back with meter-db unarchive, or, if the server has lost them, record that with"
            f" meter-db archive-server lost {name}"
        )
    archive = foreign_table(name)
    await session.count(f"DROP FOREIGN TABLE {archive}, {archive}_checksums")
    await session.count(f"DROP SERVER {PREFIX}{name} CASCADE")


async def _map_user(session: Session, server: str, role: str, parameters: Mapping[str, str]) -> None:
    options = {key: value for key, value in parameters.items() if key in OF_USER}
    listed = ", ".join(f'"{key}" %s' for key in options)
    await session.count(f"DROP USER MAPPING IF EXISTS FOR {role} SERVER {server}")
    await session.count(f"CREATE USER MAPPING FOR {role} SERVER {server} OPTIONS ({listed})", [*options.values()])


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
