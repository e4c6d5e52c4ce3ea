"""TLS of ports that a daemon listens on: its certificate, and the CA of client certificates if clients need one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from OpenSSL.SSL import Connection
from OpenSSL.SSL import Context
from OpenSSL.SSL import Error
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.ssl import TLSVersion
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from meter.tls.files import BadTlsFile
from meter.tls.files import PemFile
from meter.tls.files import WatchedFiles
from meter.tls.files import read_certificates
from meter.tls.files import read_own_certificate
from meter.tls.files import validity_problem
from meter.tls.reasons import unusable
from meter.tls.trust import trust_root


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """TLS of a port, version 1.2 at least; raises :class:`~meter.tls.BadTlsFile` for files that cannot be used.

    ``certificate`` is a file with the certificate and its chain. With ``client_ca`` clients need a certificate that a CA in this
    file has signed. Each new connection uses the present contents of the files; existing connections stay as they are.
    """

    def __init__(self, certificate: PemFile, key: PemFile, client_ca: PemFile | None = None) -> None:
        files: Sequence[PemFile | None] = (certificate, key, client_ca)
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._contexts = WatchedFiles([each for each in files if each is not None], self._context)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Connection:  # noqa: N803
        """Return a new connection."""
        return Connection(self._contexts.current()[0], None)

    def wrapped(self, factory: IProtocolFactory, clock: Any) -> IProtocolFactory:
        """Return ``factory`` behind TLS, for any listening endpoint."""
        wrapped: IProtocolFactory = TLSMemoryBIOFactory(self, False, factory, clock)
        return wrapped

    def refresh(self) -> None:
        """Read files that have changed now, not only for the next connection."""
        self._contexts.current()

    def validity_problem(self, now: datetime) -> str:
        """Return what is wrong with the times of the certificate at ``now``, empty if it is valid. Clients would refuse it."""
        return validity_problem(self._certificate, self._contexts.current()[1], now)

    def end(self) -> datetime:
        """Return when the certificate ends."""
        return self._contexts.current()[1].not_valid_after_utc

    def replace(self, other: ServerTls) -> None:
        """Use the files of ``other`` for new connections."""
        self._certificate, self._key, self._client_ca = other._certificate, other._key, other._client_ca
        self._contexts = other._contexts

    def _context(self) -> tuple[Context, x509.Certificate]:
        own = read_own_certificate(self._certificate, self._key)
        options = own.options()
        if self._client_ca is not None:
            options["trustRoot"] = trust_root(read_certificates(self._client_ca))
        try:
            context: Context = CertificateOptions(
                **options, raiseMinimumTo=TLSVersion.TLSv1_2, acceptableProtocols=[b"http/1.1"]
            ).getContext()
        except Error as error:  # such as a key that is too short
            raise BadTlsFile(unusable(self._certificate, error)) from None
        return context, own.certificate
