"""Connection parameters: a libpq DSN or URL, completed with the settings of all of Meter's connections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

_QUOTED_DSN = re.compile(r'((?<!parameter): |after )".*"', re.DOTALL)
"""What libpq quotes of a DSN that it cannot parse. The names of unknown parameters, which it quotes too, are no secret."""

_REST_OF_PASSWORD = re.compile(r"postgres(?:ql)?://(?:[^/?]*@[^/?]*|[^/?]*/[^?]*)@")
"""A URL whose host or name of the database would be the rest of a password, which has an unescaped @ or slash."""

KEEPALIVES = {"keepalives_idle": "60", "keepalives_interval": "10", "keepalives_count": "3"}

INDEPENDENT_SETTINGS = {
    "extra_float_digits": "1",  # with less, volumes lose digits on their way to a client
    "quote_all_identifiers": "off",  # names of tables are compared
    "default_transaction_isolation": r"read\ committed",  # what is read after a lock was granted must be what is committed then
}
"""Settings that an administrator may have changed for a server, a database or a role, and on which answers must not depend."""


def connection_parameters(
    dsn: str,
    *,
    statement_timeout_seconds: float,
    application_name: str,
    read_only: bool = False,
    idle_transaction_seconds: float = 0,
) -> dict[str, str]:
    """Return ``dsn`` as libpq parameters, completed with time zone, timeouts and application name; those in ``dsn`` prevail.

    PostgreSQL ends a session that does nothing in a transaction for ``idle_transaction_seconds``; 0 is without limit. ``ValueError`` if libpq
    cannot parse ``dsn``.
    """
    try:
        given = _parse(dsn)
    except ValueError as error:
        raise ValueError(f"dsn of [store] must be like postgresql://user@host/database: {error}") from error
    settings = {
        "timezone": "UTC",
        "statement_timeout": str(round(statement_timeout_seconds * 1000)),
        "default_transaction_read_only": "on" if read_only else "off",
        "jit": "off",  # compiling takes longer than Meter's queries
        **INDEPENDENT_SETTINGS,
    }
    if idle_transaction_seconds:
        settings["idle_in_transaction_session_timeout"] = str(round(idle_transaction_seconds * 1000))
    if read_only:
        # Queries look up rows of small tables many times: by the index, whatever the planner believes of their size.
        settings["enable_seqscan"] = "off"
    if read_only and given.get("target_session_attrs") == "read-write":
        # Otherwise libpq would take the primary, in a session that is read-only by default, for a standby.
        given["target_session_attrs"] = "primary"
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return {
        **KEEPALIVES,
        "application_name": application_name,
        **given,
        "options": f"{options} {given.get('options', '')}".strip(),
    }


def parsed(dsn: str) -> dict[str, str]:
    """Return the parameters that ``dsn`` names, and no others; ``ValueError`` if libpq cannot parse it."""
    try:
        return _parse(dsn)
    except ValueError as error:
        raise ValueError(f"{error}: give something like postgresql://user@host/database") from error


def _parse(dsn: str) -> dict[str, str]:
    """Return the parameters in ``dsn``; ``ValueError`` says why there are none, without what may be a password."""
    try:
        given: dict[str, str] = parse_dsn(dsn)
    except psycopg2.Error as error:
        raise ValueError(_QUOTED_DSN.sub(r"\1***", str(error).strip())) from None
    if _REST_OF_PASSWORD.match(dsn):
        raise ValueError(
            "there is another @ in or after the host; in a password, the characters / # ? and @ must be percent-encoded (%2F %23 %3F %40)"
        )
    return given


def described(parameters: Mapping[str, str]) -> str:
    """Return host, port and database as text, without the password."""
    places = ",".join(dict.fromkeys(place_of(each) for each in one_by_one(parameters)))
    return f"PostgreSQL at {places}/{parameters.get('dbname', '')}"


def place_of(parameters: Mapping[str, str]) -> str:
    """Return host and port as text."""
    host = parameters.get("host") or parameters.get("hostaddr") or "the local socket"
    return f"{host}:{parameters['port']}" if "port" in parameters else host


def one_by_one(parameters: Mapping[str, str]) -> list[dict[str, str]]:
    """Return ``parameters`` for each host in them, in the order in which they are to be tried.

    What libpq does with lists that do not match, it says itself: they are returned as they are.
    """
    lists = {name: parameters[name].split(",") for name in ("host", "hostaddr", "port") if name in parameters}
    count = max((len(values) for name, values in lists.items() if name != "port"), default=1)
    if count == 1 or any(
        len(values) not in ({1, count} if name == "port" else {count}) for name, values in lists.items()
    ):
        return [dict(parameters)]
    each = [
        {**parameters, **{name: values[number % len(values)] for name, values in lists.items()}}
        for number in range(count)
    ]
    if parameters.get("target_session_attrs") != "prefer-standby":
        return each
    # In two turns, as libpq does: first for a standby.
    return [{**one, "target_session_attrs": kind} for kind in ("standby", "any") for one in each]


async def with_addresses(reactor: IReactorPluggableNameResolver, parameters: Mapping[str, str]) -> dict[str, str]:
    """Return ``parameters`` with the addresses of the host, resolved without blocking as libpq would.

    The host name stays, because libpq verifies certificates with it. Sockets and addresses do not change; lists of hosts are
    for :func:`one_by_one`.
    """
    host = parameters.get("host", "")
    if not host or "hostaddr" in parameters or host[0] in "/@" or "," in host or _is_address(host):
        return dict(parameters)
    addresses = await _lookup(reactor, host)
    if not addresses:
        return dict(parameters)  # libpq reports what is wrong with the name
    return {**parameters, "host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses)}


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _lookup(reactor: IReactorPluggableNameResolver, host: str) -> Deferred[list[str]]:
    receiver = _Addresses()
    reactor.nameResolver.resolveHostName(receiver, host)
    return receiver.complete


@implementer(IResolutionReceiver)
class _Addresses:
    def __init__(self) -> None:
        self._found: list[str] = []
        self.complete: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: Any) -> None:  # noqa: N803 (Twisted's name)
        pass

    def addressResolved(self, address: Any) -> None:
        if address.host not in self._found:
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        self.complete.callback(self._found)
