"""Why a TLS connection failed, as a sentence for logs and readiness: OpenSSL's errors name neither the certificate nor a way out."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL
from service_identity import VerificationError

EXPIRED = 10
NOT_YET_VALID = 9
UNKNOWN_CA = frozenset({2, 18, 19, 20, 21})
"""Codes of OpenSSL's ``X509_V_ERR_…``: the issuer is missing, or the chain ends at a certificate that is not trusted."""

OTHER_CODES = {
    7: "its signature is wrong",
    24: "one of its issuers is not a CA",
    26: "it is not made for this purpose (extended key usage)",
    62: "it is for another host",
    66: "its key is too short",
    67: "the key of its CA is too short",
    68: "its signature algorithm is too weak",
}

ALERTS = (
    ("certificate required", "the server requires a client certificate, and none is configured"),
    (
        "handshake failure",
        "the server refused the handshake: it requires a client certificate, or there is no cipher in common",
    ),
    ("alert unknown ca", "the peer does not trust the CA that signed the certificate presented to it"),
    ("alert certificate expired", "the certificate presented to the peer has expired"),
    ("alert bad certificate", "the peer refused the certificate presented to it"),
    ("alert certificate unknown", "the peer refused the certificate presented to it"),
    ("alert certificate revoked", "the certificate presented to the peer is revoked"),
    ("protocol version", "client and server have no version of TLS in common"),
    ("unsupported protocol", "client and server have no version of TLS in common"),
    ("wrong version number", "the port does not speak TLS"),
    ("record layer failure", "the port does not speak TLS"),
)
"""What OpenSSL says, and what it means."""


class CertificateRefused(Exception):
    """The certificate of the server was not accepted; the text says why."""


def refusal(certificate: x509.Certificate, code: int, trusted: str) -> CertificateRefused:
    """Return why OpenSSL refused ``certificate`` with ``code``; ``trusted`` says which CAs are trusted."""
    name = certificate.subject.rfc4514_string() or "without a name"
    if code == EXPIRED:
        why = f"it has expired, at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    elif code == NOT_YET_VALID:
        why = f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    elif code in UNKNOWN_CA:
        why = f"no trusted CA ({trusted}) has signed it, its issuer is {certificate.issuer.rfc4514_string()}"
    else:
        why = OTHER_CODES.get(code, f"OpenSSL's verification error {code}")
    return CertificateRefused(f"the server's certificate, {name}, cannot be verified: {why}")


def other_host(certificate: x509.Certificate, host: str) -> CertificateRefused:
    """Return why the certificate of another host than ``host`` was refused."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = ", ".join(str(each.value) for each in extension)[:200]
    except (x509.ExtensionNotFound, ValueError):
        names = ""
    return CertificateRefused(
        f"the server's certificate is for another host: not for {host}, but for {names or 'none (it has no subjectAltName)'}"
    )


def unusable(certificate: object, error: SSL.Error) -> str:
    """Return why OpenSSL does not take a certificate with its key, which both could be read."""
    return f"{certificate} is refused by OpenSSL: {'; '.join(_words(error)) or 'no reason was given'}"


def tls_reason(error: BaseException | None) -> str | None:
    """Return what a TLS error of a connection means; ``None`` for any other error."""
    if isinstance(error, CertificateRefused):
        return str(error)
    if isinstance(error, VerificationError):
        return "the server's certificate is for another host"
    if not isinstance(error, SSL.Error):
        return None
    text = "; ".join(_words(error))
    if "certificate verify failed" in text:
        return "the server's certificate cannot be verified"
    for words, meaning in ALERTS:
        if words in text:
            return f"{meaning} ({text})"
    return f"TLS failed: {text or 'no reason was given'}"


def _words(error: Any) -> list[str]:
    """Return the reasons in an error of OpenSSL, which has a list of triples: library, function, reason."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list | tuple) else []
    return [str(each[-1]) for each in entries if each]
