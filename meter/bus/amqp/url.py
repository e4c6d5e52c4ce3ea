"""The address of the broker and the credentials, parsed from a URL: ``amqp://user:password@host:5672/vhost``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal
from typing import cast
from urllib.parse import parse_qs
from urllib.parse import unquote
from urllib.parse import urlsplit

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from meter.tls import ClientTls
from meter.tls import PemFile

DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}

CONNECT_SECONDS = 30.0

NO_HOST = re.compile(r"[\s;|\\!\"$&'()*+<=>^`{}]")
"""Characters that no name of a host has; some are taken for a separator."""

AuthMechanism = Literal["plain", "external"]
"""*plain* sends user and password; *external* leaves it to the broker to take the user's name from the client certificate."""

TLS_PARAMETERS = ("cacertfile", "certfile", "keyfile", "auth_mechanism")
"""Parameters of an ``amqps://`` URL, as RabbitMQ's URI query parameters name them."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The address of a broker, user and password. ``str()`` omits the password."""

    host: str
    port: int
    vhost: str = "/"
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    auth_mechanism: AuthMechanism = "plain"

    def __str__(self) -> str:
        return f"{self.place}, virtual host {self.vhost}"

    @property
    def account(self) -> str:
        """Who this daemon is for the broker, as text."""
        return "user of the client certificate" if self.auth_mechanism == "external" else f"user {self.user}"

    @property
    def place(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def endpoint(self, reactor: Any, connect_seconds: float = CONNECT_SECONDS) -> IStreamClientEndpoint:
        """Return the endpoint that connects to this address within ``connect_seconds``.

        With TLS the broker's certificate must match the host and be signed by a CA in ``ca_file``, or by a system CA
        where no file is given. Raises :class:`~meter.tls.BadTlsFile` for files that cannot be used; each new connection uses
        their present contents.
        """
        endpoint = HostnameEndpoint(reactor, self.host.encode("idna"), self.port, connect_seconds)
        if not self.tls:
            return endpoint
        tls = ClientTls(
            _file("cacertfile", self.ca_file), _file("certfile", self.certificate_file), _file("keyfile", self.key_file)
        )
        return wrapClientTLS(tls.connections(self.host), endpoint)


def _file(parameter: str, path: str | None) -> PemFile | None:
    return PemFile(f"{parameter} of the broker's URL", path) if path else None


def broker_address(url: str) -> BrokerAddress:
    """Return the address in ``url``; ``ValueError`` describes an invalid URL without the password.

    User, password and virtual host may be percent-escaped; without a path the virtual host is ``/``, as is ``%2F``.
    ``amqps://`` uses TLS and accepts RabbitMQ's parameters ``cacertfile`` (CAs to trust), ``certfile`` and ``keyfile`` (the client
    certificate and its key, which may be in one file), and ``auth_mechanism``, ``plain`` or ``external``.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"the URL of the broker must begin with amqp:// or amqps://, not with {parts.scheme!r}")
    tls = parts.scheme == "amqps"
    if "@" in parts.path or "@" in parts.fragment or any("@" in name for name in parse_qs(parts.query, True)):
        # Not the text, which may be the rest of a password, where an unescaped / # or ? in it ends the host.
        raise ValueError(
            "the URL of the broker has an @ after its host; in a password and in a virtual host, the characters / # ? and @ must be percent-encoded (%2F %23 %3F %40)"
        )
    if not parts.hostname:
        raise ValueError("the URL of the broker must name a host: amqp://user:password@host:5672/vhost")
    if wrong := NO_HOST.search(parts.hostname):
        raise ValueError(
            f"the URL of the broker has {wrong[0]!r} in the name of a host; several hosts are separated by commas:"
            " amqp://user:password@host1:5672,host2:5672/vhost"
        )
    try:
        port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
        if port == 0:
            raise ValueError
    except ValueError as error:
        # urllib's error may contain the password, where an unescaped / or # in it ends the host.
        raise ValueError(
            "the port in the URL of a broker must be a number from 1 to 65535; in a password, the characters / # ? and @ must be percent-encoded (%2F %23 %3F %40)"
        ) from error
    query = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(query.keys() - set(TLS_PARAMETERS if tls else ()))
    if unknown:
        known = f"{', '.join(TLS_PARAMETERS)} are supported"
        known = f"only {known}" if tls else f"amqp:// takes none; with amqps:// {known}"
        raise ValueError(f"the URL of the broker has unknown parameters: {', '.join(unknown)}; {known}")
    mechanism = _parameter(query, "auth_mechanism") or "plain"
    if mechanism.lower() not in ("plain", "external"):
        raise ValueError(f"auth_mechanism in the URL of the broker must be plain or external, not {mechanism!r:.80}")
    certificate, key = _parameter(query, "certfile"), _parameter(query, "keyfile")
    if key and not certificate:
        raise ValueError("the URL of the broker has a keyfile and no certfile")
    if mechanism.lower() == "external" and not certificate:
        raise ValueError("auth_mechanism=external in the URL of the broker needs a certfile, and a keyfile")
    path = parts.path.removeprefix("/")
    if "/" in path:
        raise ValueError(f"a / in the name of a virtual host must be escaped as %2F: {path!r}")
    return BrokerAddress(
        host=parts.hostname,
        port=port,
        vhost=unquote(path) or "/",
        user=unquote(parts.username) if parts.username else "guest",
        password=unquote(parts.password) if parts.password is not None else "guest",
        tls=tls,
        ca_file=_parameter(query, "cacertfile"),
        certificate_file=certificate,
        key_file=key,
        auth_mechanism=cast(AuthMechanism, mechanism.lower()),
    )


def _parameter(query: dict[str, list[str]], name: str) -> str | None:
    """Return the last value of a parameter, ``None`` without one; an empty one would be taken for none, so it is refused."""
    if name not in query:
        return None
    value = query[name][-1]
    if not value:
        raise ValueError(f"{name} in the URL of the broker must not be empty")
    return value
