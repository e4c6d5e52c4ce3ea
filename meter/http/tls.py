"""HTTP over TCP and TLS: whom we believe, and who we are to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from OpenSSL.SSL import Connection
from treq.client import HTTPClient
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate
from twisted.internet.ssl import CertificateOptions
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.ssl import trustRootFromCertificates
from twisted.web.client import Agent
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from meter.http.exchange import HttpClient
from meter.http.service_limiter import IRequestMetrics
from meter.http.service_limiter import LimitedHttpClient
from meter.http.service_limiter import Limits
from meter.openstack.credentials import BadCredentials
from meter.openstack.credentials import Tls

CONNECT_SECONDS = 10.0
KEPT_CONNECTIONS = 8
"""To one host, kept open between requests."""


def web(
    reactor: Any,
    tls: Tls,
    *,
    largest_body_bytes: int,
    limits: Limits,
    by_service: Mapping[str, Limits],
    account: IRequestMetrics,
) -> LimitedHttpClient:
    """Return HTTP within budgets over ``reactor``; :class:`BadCredentials` for certificates that cannot be read."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = KEPT_CONNECTIONS
    agent = Agent(reactor, contextFactory=Policy(tls), connectTimeout=CONNECT_SECONDS, pool=pool)
    http = HttpClient(HTTPClient(agent), reactor, largest_body_bytes=largest_body_bytes)
    return LimitedHttpClient(http, reactor, limits=limits, by_service=by_service, account=account)


@implementer(IPolicyForHTTPS)
class Policy:
    """Whom we believe over HTTPS: the system's authorities or ``tls.ca_file``, or, if insecure, anybody."""

    def __init__(self, tls: Tls) -> None:
        self._insecure = tls.insecure
        try:
            self._ours = _own_certificate(tls)
            self._trust = _authorities(tls.ca_file) if tls.ca_file else None
        except (OSError, ValueError) as error:
            raise BadCredentials(f"ca_file, cert_file, key_file: {error}") from None

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """Return what begins TLS with ``hostname``."""
        if self._insecure:
            return _Unverified(hostname, self._ours)
        more = {} if self._trust is None else {"trustRoot": self._trust}
        return optionsForClientTLS(hostname.decode("ascii"), clientCertificate=self._ours, **more)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """TLS that asks nobody for a proof of who they are."""

    def __init__(self, hostname: bytes, ours: PrivateCertificate | None) -> None:
        self._hostname = hostname
        key, certificate = (ours.privateKey.original, ours.original) if ours else (None, None)
        self._context = CertificateOptions(privateKey=key, certificate=certificate, verify=False).getContext()

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:  # noqa: N803
        """Return a connection that names the host it wants and takes whoever answers."""
        connection = Connection(self._context, None)
        connection.set_tlsext_host_name(self._hostname)
        return connection


def _authorities(path: str) -> Any:
    with open(path, "rb") as file:
        pem = file.read()
    end = b"-----END CERTIFICATE-----"
    certificates = [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]
    if not certificates:
        raise ValueError(f"{path} holds no certificate in PEM")
    return trustRootFromCertificates(certificates)


def _own_certificate(tls: Tls) -> PrivateCertificate | None:
    if not tls.cert_file:
        return None
    with open(tls.cert_file, "rb") as certificate, open(tls.key_file or tls.cert_file, "rb") as key:
        try:
            ours: PrivateCertificate = PrivateCertificate.loadPEM(certificate.read() + b"\n" + key.read())
        except Exception as error:  # OpenSSL's own kinds of error
            raise ValueError(f"{tls.cert_file}: {error}") from None
        return ours


__all__ = ["Policy", "web"]
