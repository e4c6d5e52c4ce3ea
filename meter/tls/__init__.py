"""TLS: certificates and keys in files, which are read again when they change, for connections as a client and as a server.

The only package that uses pyOpenSSL.
"""

from meter.tls.clients import ClientTls
from meter.tls.files import BadTlsFile
from meter.tls.files import PemFile
from meter.tls.reasons import CertificateRefused
from meter.tls.reasons import tls_reason
from meter.tls.servers import ServerTls

__all__ = ["BadTlsFile", "CertificateRefused", "ClientTls", "PemFile", "ServerTls", "tls_reason"]
