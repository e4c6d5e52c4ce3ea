"""TLS of the HTTP client: how servers are verified, and the client certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate
from twisted.internet.ssl import CertificateOptions
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.ssl import trustRootFromCertificates
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer


class BadTlsOptions(ValueError):
    """A CA file, certificate or key that cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """PEM files; an empty text is none.

    ``ca_file`` replaces the system's CAs. ``cert_file`` is the client certificate; its key may be in the same file.
    ``insecure`` turns verification of servers off.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False


@implementer(IPolicyForHTTPS)
class TlsPolicy:
    """The TLS policy of Twisted's HTTP agent; raises :class:`BadTlsOptions` for files that cannot be used."""

    def __init__(self, tls: TlsOptions) -> None:
        self._insecure = tls.insecure
        try:
            self._client_certificate = _load_client_certificate(tls)
            self._trust_root = _load_trust_root(tls.ca_file) if tls.ca_file else None
        except (OSError, ValueError) as error:
            raise BadTlsOptions(f"ca_file, cert_file, key_file: {error}") from None

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """Return the creator of TLS connections to ``hostname``."""
        if self._insecure:
            return _UnverifiedConnections(hostname, self._client_certificate)
        trust = {} if self._trust_root is None else {"trustRoot": self._trust_root}
        return optionsForClientTLS(hostname.decode("ascii"), clientCertificate=self._client_certificate, **trust)


@implementer(IOpenSSLClientConnectionCreator)
class _UnverifiedConnections:
    """TLS connections to a server whose certificate is not verified."""

    def __init__(self, hostname: bytes, client_certificate: PrivateCertificate | None) -> None:
        self._hostname = hostname
        key, certificate = (
            (client_certificate.privateKey.original, client_certificate.original)
            if client_certificate
            else (None, None)
        )
        self._context = CertificateOptions(privateKey=key, certificate=certificate, verify=False).getContext()

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:  # noqa: N803
        """Return a connection that sends the host name (SNI) and verifies nothing."""
        connection = Connection(self._context, None)
        connection.set_tlsext_host_name(self._hostname)
        return connection


def _load_trust_root(path: str) -> Any:
    with open(path, "rb") as file:
        pem = file.read()
    end = b"-----END CERTIFICATE-----"
    certificates = [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]
    if not certificates:
        raise ValueError(f"{path} contains no PEM certificate")
    return trustRootFromCertificates(certificates)


def _load_client_certificate(tls: TlsOptions) -> PrivateCertificate | None:
    if not tls.cert_file:
        return None
    with open(tls.cert_file, "rb") as certificate, open(tls.key_file or tls.cert_file, "rb") as key:
        try:
            loaded: PrivateCertificate = PrivateCertificate.loadPEM(certificate.read() + b"\n" + key.read())
        except Exception as error:  # pyOpenSSL and cryptography have their own error classes
            raise ValueError(f"{tls.cert_file}: {error}") from None
        return loaded
