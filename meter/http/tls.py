"""TLS of the HTTP client: how servers are verified, and the client certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from meter.tls import ClientTls
from meter.tls import PemFile


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
    """The TLS policy of Twisted's HTTP agent; raises :class:`BadTlsFile` for files that cannot be used.

    Each new connection uses the present contents of the files.
    """

    def __init__(self, tls: TlsOptions) -> None:
        self._tls = ClientTls(
            _file("ca_file", tls.ca_file),
            _file("cert_file", tls.cert_file),
            _file("key_file", tls.key_file),
            insecure=tls.insecure,
            private=False,  # older installations may have a key that others can read; meter-doctor tells it
        )

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """Return the creator of TLS connections to ``hostname``."""
        return self._tls.connections(hostname.decode("ascii"))


def _file(setting: str, path: str) -> PemFile | None:
    return PemFile(setting, path) if path else None
