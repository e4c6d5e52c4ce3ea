"""TLS of connections that a daemon opens: the server is verified, a client certificate is sent if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT
from OpenSSL.SSL import VERIFY_PEER
from OpenSSL.SSL import Connection
from OpenSSL.SSL import Context
from OpenSSL.SSL import Error
from service_identity import VerificationError
from service_identity.hazmat import DNS_ID
from service_identity.hazmat import IPAddress_ID
from service_identity.hazmat import verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress
from twisted.internet.abstract import isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.internet.ssl import platformTrust
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meter.tls.files import BadTlsFile
from meter.tls.files import PemFile
from meter.tls.files import WatchedFiles
from meter.tls.files import read_certificates
from meter.tls.files import read_own_certificate
from meter.tls.reasons import other_host
from meter.tls.reasons import refusal
from meter.tls.reasons import unusable
from meter.tls.trust import trust_root

_log = Logger()


class ClientTls:
    """TLS of connections to servers; raises :class:`~meter.tls.BadTlsFile` for files that cannot be used.

    ``ca_file`` replaces the system's CAs. ``certificate`` is sent to servers that ask for one; ``key`` may be in the same file, and
    must not be readable by every user if it is ``private``. With ``insecure`` servers are not verified. Each new connection uses
    the present contents of the files.
    """

    def __init__(
        self,
        ca_file: PemFile | None = None,
        certificate: PemFile | None = None,
        key: PemFile | None = None,
        *,
        insecure: bool = False,
        private: bool = True,
    ) -> None:
        self._ca_file = ca_file
        self._certificate = certificate
        self._key = key or certificate
        self._insecure = insecure
        self._private = private
        files: Sequence[PemFile | None] = (ca_file, certificate, key)
        self._contexts = WatchedFiles([each for each in files if each is not None], self._context)

    def connections(self, host: str) -> Any:
        """Return the creator of TLS connections to ``host``, for Twisted's endpoints and agents."""
        trusted = f"those in {self._ca_file.path}" if self._ca_file else "the system's, as no file of CAs is set"
        return _Connections(self._contexts, host, None if self._insecure else trusted)

    def _context(self) -> Context:
        options: dict[str, Any] = {}
        if self._certificate is not None and self._key is not None:
            own = read_own_certificate(self._certificate, self._key, private=self._private)
            options |= own.options()
        if self._insecure:
            options["verify"] = False
        else:
            options["trustRoot"] = trust_root(read_certificates(self._ca_file)) if self._ca_file else platformTrust()
        try:
            context: Context = CertificateOptions(**options).getContext()
        except Error as error:  # such as a key that is too short
            raise BadTlsFile(unusable(self._certificate, error)) from None
        return context


@implementer(IOpenSSLClientConnectionCreator)
class _Connections:
    """TLS connections to ``host``, which its certificate has to name unless ``trusted`` is ``None``."""

    def __init__(self, contexts: WatchedFiles[Context], host: str, trusted: str | None) -> None:
        self._contexts = contexts
        self._host = host
        self._trusted = trusted
        self._is_address = isIPAddress(host) or isIPv6Address(host)
        self._ascii = host if self._is_address else host.encode("idna").decode("ascii")

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:  # noqa: N803
        """Return a new connection; Twisted stores ``tlsProtocol`` in it."""
        connection = Connection(self._contexts.current(), None)
        if not self._is_address:  # an address may not be sent as a server name (RFC 6066)
            connection.set_tlsext_host_name(self._ascii.encode("ascii"))
        if self._trusted is not None:
            connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return connection

    def _verify(self, connection: Any, certificate: Any, code: int, depth: int, ok: int) -> bool:
        """Return whether a certificate of the chain is accepted: what OpenSSL says, and at its end whether it names the host."""
        try:
            problem = None
            if not ok:
                problem = refusal(certificate.to_cryptography(), code, self._trusted or "")
            elif depth == 0:
                identity = IPAddress_ID(self._ascii) if self._is_address else DNS_ID(self._ascii)
                try:
                    verify_service_identity(extract_patterns(certificate), [identity], [])
                except VerificationError:
                    problem = other_host(certificate.to_cryptography(), self._host)
            if problem is None:
                return True
            connection.get_app_data().failVerification(Failure(problem))
        except Exception:
            _log.failure("a certificate could not be verified")  # OpenSSL would swallow it
        return False
