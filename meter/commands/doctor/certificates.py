"""The check *certificates*: TLS certificates in files that the configuration names, and those that servers present."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography import x509

from meter.bus.amqp.hosts import broker_addresses
from meter.commands.doctor.finding import Finding
from meter.settings import Config
from meter.store import embedded_directory
from meter.store.postgres.dsn import one_by_one
from meter.store.postgres.dsn import parsed

SOON = timedelta(days=21)
"""A certificate that ends earlier than this is a warning."""

RENEW = "renew the file; daemons use it for their next connections"

CONNECT_SECONDS = 5.0

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""What a client of PostgreSQL sends to begin TLS; a server that has it answers ``S``."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Certificates(NamedTuple):
    """Where certificates come from, and the function that reads them: it may block, and raises ``OSError`` or ``ValueError``.

    ``advice`` says what to do about one that ends.
    """

    label: str
    read: Callable[[], Sequence[x509.Certificate]]
    advice: str


def sources(config: Config) -> Iterator[Certificates]:
    """Yield what has certificates in this configuration: files, the broker, the database and Keystone."""
    yield from _files(config)
    url = config.bus.url.get_secret_value()
    for broker in () if url == "local:" else broker_addresses(url):
        if broker.tls:
            read = partial(presented, broker.host, broker.port)
            yield Certificates(f"the broker {broker.place}", read, "renew it on the broker")
    for name, dsn in _databases(config):
        for place in _tls_databases(dsn):
            label = f"the database of [store] {name}, {place.host}:{place.port}"
            yield Certificates(label, partial(_of_database, place), "renew it on the database server")
    keystone = config.api.auth.keystone
    if config.api.auth.mode == "keystone" and keystone.auth_url.startswith("https://"):
        parts = urlsplit(keystone.auth_url)
        read = partial(presented, parts.hostname or "", parts.port or 443)
        yield Certificates(f"Keystone {parts.hostname}", read, "renew it on the server of Keystone")


def _files(config: Config) -> Iterator[Certificates]:
    url = config.bus.url.get_secret_value()
    broker = None if url == "local:" else broker_addresses(url)[0]
    named = {
        "[api.auth.keystone] ca_file": config.api.auth.keystone.ca_file,
        "[openstack] ca_file": config.openstack.ca_file,
        "[openstack] cert_file": config.openstack.cert_file,
        "cacertfile of [bus] url": (broker and broker.ca_file) or "",
        "certfile of [bus] url": (broker and broker.certificate_file) or "",
        **{
            f"{file} of [store] {name}": "" if dsn.get(file) == "system" else dsn.get(file, "")
            for name, dsn in _databases(config)
            for file in ("sslrootcert", "sslcert")
        },
        "[api.tls] cert_file": config.api.tls.cert_file,
        "[api.tls] client_ca_file": config.api.tls.client_ca_file,
        "[status.tls] cert_file": config.status.tls.cert_file,
        "[status.tls] client_ca_file": config.status.tls.client_ca_file,
        "[api] listen": listening_certificate(config.api.listen),
        "[status] listen": listening_certificate(config.status.listen),
        **{
            f"[status.by_daemon] {name}": listening_certificate(listen)
            for name, listen in config.status.by_daemon.items()
        },
    }
    for label, file in named.items():
        if file:
            advice = (
                "renew it, and restart the daemons that use it"
                if label.endswith("listen") or "by_daemon" in label
                else RENEW
            )
            yield Certificates(f"{label}, {file}", _of_file(Path(file)), advice)


def listening_certificate(listen: str) -> str:
    """Return the file of the certificate of a Twisted endpoint ``ssl:…``; empty for any other endpoint."""
    if not listen.startswith("ssl:"):
        return ""
    found = dict(re.findall(r":(certKey|privateKey)=((?:\\.|[^:\\])*)", listen))
    file = found.get("certKey") or found.get("privateKey") or "server.pem"
    return re.sub(r"\\(.)", r"\1", file)


def _of_file(file: Path) -> Callable[[], Sequence[x509.Certificate]]:
    def read() -> Sequence[x509.Certificate]:
        found = _PEM.findall(file.read_bytes())
        if not found:
            raise ValueError("the file has no PEM certificate")
        return [x509.load_pem_x509_certificate(each) for each in found]

    return read


def presented(host: str, port: int) -> Sequence[x509.Certificate]:
    """Return the certificate that a TLS server presents, verified or not."""
    with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as plain:
        return [_handshake(plain, host)]


class _Place(NamedTuple):
    """A server of PostgreSQL: its name, the address or name to connect to, and the port."""

    host: str
    address: str
    port: int


def _of_database(place: _Place) -> Sequence[x509.Certificate]:
    with socket.create_connection((place.address, place.port), timeout=CONNECT_SECONDS) as plain:
        plain.sendall(SSL_REQUEST)
        return [_handshake(plain, place.host)] if plain.recv(1) == b"S" else []


def _handshake(plain: socket.socket, host: str) -> x509.Certificate:
    context = ssl.create_default_context()
    context.check_hostname = False  # one that has ended must be read too
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(plain, server_hostname=host) as secured:
        encoded = secured.getpeercert(binary_form=True)
    if encoded is None:
        raise ValueError("the server presents no certificate")
    return x509.load_der_x509_certificate(encoded)


def _databases(config: Config) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and parameters of each DSN. One that cannot be parsed is a finding of the check *configuration*."""
    for name, dsn in (("dsn", config.store.dsn), ("replica_dsn", config.store.replica_dsn)):
        url = dsn.get_secret_value()
        if url and embedded_directory(url) is None:
            with suppress(ValueError):
                yield name, parsed(url)


def _tls_databases(dsn: dict[str, str]) -> Iterator[_Place]:
    """Yield each host in ``dsn`` that is reached over TCP with TLS."""
    if dsn.get("sslmode", "prefer") in ("disable", "allow"):
        return
    for one in one_by_one(dsn):
        address = one.get("hostaddr") or one.get("host", "")
        if address and address[0] not in "/@" and "," not in address:
            yield _Place(one.get("host") or address, address, int(one.get("port") or 5432))


def certificate_findings(
    label: str, advice: str, certificates: Sequence[x509.Certificate], now: datetime
) -> Iterator[Finding]:
    """Yield what is wrong with the times of the certificates from one source at ``now``; one finding *ok* if nothing is.

    Of several in one file, such as a bundle of authorities, each that has ended or soon ends is named.
    """
    quiet = True
    for certificate in certificates:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        name = certificate.subject.rfc4514_string()
        if ends <= now:
            quiet = False
            text = f"the certificate {name} of {label} ended at {ends:%Y-%m-%d %H:%M} UTC: connections fail"
            yield Finding("certificates", "fault", text, advice)
        elif begins > now:
            quiet = False
            text = f"the certificate {name} of {label} is valid from {begins:%Y-%m-%d %H:%M} UTC only"
            yield Finding("certificates", "fault", text, "set the clock of this host, or use another certificate")
        elif ends - now < SOON:
            quiet = False
            text = f"the certificate {name} of {label} ends at {ends:%Y-%m-%d %H:%M} UTC"
            yield Finding("certificates", "warning", text, advice)
    if quiet and certificates:
        first = min(each.not_valid_after_utc for each in certificates)
        yield Finding("certificates", "ok", f"{label}: valid until {first:%Y-%m-%d}")
