"""The certificates of trusted authorities, as Twisted's TLS takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from OpenSSL.crypto import X509
from twisted.internet.ssl import Certificate
from twisted.internet.ssl import trustRootFromCertificates


def trust_root(certificates: Sequence[x509.Certificate]) -> Any:
    """Return what trusts ``certificates`` and what they have signed."""
    return trustRootFromCertificates([Certificate(X509.from_cryptography(each)) for each in certificates])
