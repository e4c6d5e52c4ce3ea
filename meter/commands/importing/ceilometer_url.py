"""The URL of Ceilometer's database, as in ``ceilometer.conf``: which databases can be read, and with what driver."""

from __future__ import annotations

import os
from typing import Any

from meter.commands.importing.import_source import ImportSourceError
from meter.settings.masked import masked

DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "postgresql": "postgresql+psycopg2",
    "postgres": "postgresql+psycopg2",
}
"""The installed driver of a database whose URL names none, as most in ceilometer.conf; SQLAlchemy would take another."""

BACKENDS = ("mysql", "mariadb", "postgresql", "postgres", "sqlite")

RIGHT = "mysql://user@host/ceilometer, postgresql://user@host/ceilometer or sqlite:////path/of/ceilometer.sqlite"


def sqlalchemy_library() -> Any:
    """Return the module of SQLAlchemy; raise :class:`ImportSourceError` if it is not installed."""
    try:
        import sqlalchemy
    except ImportError as error:
        raise ImportSourceError(
            "Ceilometer's tables need the library SQLAlchemy, which is not installed: pip install sqlalchemy pymysql"
        ) from error
    return sqlalchemy


def database_url(text: str) -> Any:
    """Return ``text`` as a URL of SQLAlchemy; raise :class:`ImportSourceError` if it is none of a database that can be read."""
    library = sqlalchemy_library()
    try:
        url = library.engine.make_url(text)
        if "@" in (url.host or ""):  # the driver would look up the end of the password, and tell it
            raise ValueError("an @ in the password must be percent-encoded")
    except (library.exc.ArgumentError, ValueError) as error:  # no URL, a port that is no number
        raise ImportSourceError(  # without the text, which may have a password in a place where none is looked for
            f"the URL of the database is not like {RIGHT}; special characters of a password are written as %XX there, or the"
            " password is given with --password-file"
        ) from error
    backend = url.drivername.partition("+")[0]
    if backend not in BACKENDS:
        raise ImportSourceError(
            f"{without_password(url)}: {backend} cannot be read, only MySQL, MariaDB, PostgreSQL and SQLite: {RIGHT}"
        )
    path = url.database or ""
    if backend == "sqlite" and not path.startswith("file:") and not os.path.isfile(path):
        raise ImportSourceError(f"{without_password(url)}: there is no file {path or 'in the URL'}")  # SQLite makes one
    return url


def engine_of(url: Any, password: str) -> Any:
    """Return SQLAlchemy's engine for ``url``, with ``password`` in place of that in it, if there is one."""
    chosen = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    library = sqlalchemy_library()
    try:
        return library.create_engine(chosen.set(password=password) if password else chosen)
    except (ImportError, library.exc.ArgumentError) as error:
        raise ImportSourceError(
            f"{without_password(url)}: the driver {chosen.drivername} cannot be used: {error}; install it, or write a URL"
            " without a driver"
        ) from error


def without_password(url: Any) -> str:
    """Return ``url`` as text that may be shown: without its password, and without those among its parameters."""
    return masked(url.render_as_string(hide_password=True))
