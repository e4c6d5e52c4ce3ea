"""The address of the broker and the credentials, parsed from a URL: ``amqp://user:password@host:5672/vhost``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from urllib.parse import unquote
from urllib.parse import urlsplit

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.ssl import trustRootFromCertificates

DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}

CONNECT_SECONDS = 30.0

_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


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

    def __str__(self) -> str:
        return f"{self.place}, virtual host {self.vhost}"

    @property
    def place(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def endpoint(self, reactor: Any, connect_seconds: float = CONNECT_SECONDS) -> IStreamClientEndpoint:
        """Return the endpoint that connects to this address within ``connect_seconds``.

        With TLS the broker's certificate must match the host and be signed by a CA in ``ca_file``, or by a system CA
        where no file is given. Raises ``ValueError`` for a ``ca_file`` that cannot be used.
        """
        endpoint = HostnameEndpoint(reactor, self.host.encode("idna"), self.port, connect_seconds)
        if not self.tls:
            return endpoint
        trusted = None if self.ca_file is None else trustRootFromCertificates(_certificates(Path(self.ca_file)))
        return wrapClientTLS(optionsForClientTLS(self.host, trustRoot=trusted), endpoint)


def broker_address(url: str) -> BrokerAddress:
    """Return the address in ``url``; ``ValueError`` describes an invalid URL without the password.

    User, password and virtual host may be percent-escaped; without a path the virtual host is ``/``, as is ``%2F``.
    ``amqps://`` uses TLS and accepts ``?cacertfile=FILE``, RabbitMQ's name for the file of CAs to trust.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"the URL of the broker must begin with amqp:// or amqps://, not with {parts.scheme!r}")
    tls = parts.scheme == "amqps"
    if not parts.hostname:
        raise ValueError("the URL of the broker must name a host: amqp://user:password@host:5672/vhost")
    try:
        port = parts.port or DEFAULT_PORTS[parts.scheme]
    except ValueError as error:
        # urllib's error may contain the password, where an unescaped / or # in it ends the host.
        raise ValueError(
            "the port in the URL of a broker must be a number; in a password, the characters / # ? and @ must be percent-encoded (%2F %23 %3F %40)"
        ) from error
    query = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(query.keys() - ({"cacertfile"} if tls else set()))
    if unknown:
        known = "only cacertfile" if tls else "nothing"
        raise ValueError(f"the URL of the broker has unknown parameters: {', '.join(unknown)}; {known} is supported")
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
        ca_file=query["cacertfile"][-1] if "cacertfile" in query else None,
    )


def _certificates(file: Path) -> list[Certificate]:
    try:
        found = _PEM_CERTIFICATE.findall(file.read_bytes())
    except OSError as error:
        raise ValueError(f"cacertfile of the broker's URL cannot be read: {error}") from error
    if not found:
        raise ValueError(f"cacertfile of the broker's URL, {file}, holds no PEM certificate")
    return [Certificate.loadPEM(each) for each in found]
