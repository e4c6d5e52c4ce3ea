"""Files of certificates and keys (PEM): read with errors that name file and reason, and read again when they have changed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from typing import Generic
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization import PublicFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.logger import Logger

T = TypeVar("T")

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)

OTHERS = stat.S_IRWXO
"""What other users may do with a file. The group may read it, as in Debian's ``/etc/ssl/private``."""


class BadTlsFile(ValueError):
    """A file of certificates or a key that cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file, and the setting that names it."""

    setting: str
    path: str

    def __str__(self) -> str:
        return f"{self.setting}, {self.path},"


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A certificate with the chain up to its CA, as far as it is known, and its key."""

    certificate: x509.Certificate
    chain: Sequence[x509.Certificate]
    key: Any

    def options(self) -> dict[str, Any]:
        """Return it as arguments of Twisted's ``CertificateOptions``."""
        return {"certificate": self.certificate, "privateKey": self.key, "extraCertChain": list(self.chain)}


def read_certificates(file: PemFile) -> list[x509.Certificate]:
    """Return the certificates in ``file``, at least one; raise :class:`BadTlsFile`."""
    content, _ = _read(file)
    found = _CERTIFICATE.findall(content)
    if not found:
        raise BadTlsFile(f"{file} contains no PEM certificate")
    try:
        return [x509.load_pem_x509_certificate(each) for each in found]
    except ValueError as error:
        raise BadTlsFile(f"{file} contains a damaged certificate: {error}") from None


def read_own_certificate(certificate: PemFile, key: PemFile, *, private: bool = True) -> OwnCertificate:
    """Return a certificate and its key, which may be in the same file; raise :class:`BadTlsFile`.

    The first certificate in the file is meant, the others are its chain. With ``private``, a key that every user of this host may
    read is refused.
    """
    first, *chain = read_certificates(certificate)
    loaded = _read_key(key, private=private)
    try:
        matches = _encoded(loaded.public_key()) == _encoded(first.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadTlsFile(f"{certificate} has a key that cannot be used: {error}") from None
    if not matches:
        raise BadTlsFile(
            f"{key} contains another key than that of the certificate in {certificate.path}: they do not match"
        )
    return OwnCertificate(first, chain, loaded)


def _read_key(file: PemFile, *, private: bool) -> Any:
    content, mode = _read(file)
    found = _KEY.search(content)
    if found is None:
        more = ", only certificates: name the file with the key" if _CERTIFICATE.search(content) else ""
        raise BadTlsFile(f"{file} contains no PEM private key{more}")
    if private and mode & OTHERS:
        raise BadTlsFile(f"{file} has mode {mode:04o}: every user can read the key; chmod o= {file.path}")
    try:
        return load_pem_private_key(found[0], password=None)
    except TypeError:
        raise BadTlsFile(
            f"{file} contains an encrypted key: decrypt it, a daemon cannot ask for a passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadTlsFile(f"{file} contains a damaged key: {error}") from None


def _read(file: PemFile) -> tuple[bytes, int]:
    """Return the contents and the mode of a file."""
    try:
        with open(file.path, "rb") as opened:
            return opened.read(), stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
    except OSError as error:
        raise BadTlsFile(f"{file} cannot be read: {error.strerror}") from None


def validity_problem(file: PemFile, certificate: x509.Certificate, now: datetime) -> str:
    """Return what is wrong with the times of the certificate in ``file`` at ``now``, empty if it is valid."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends <= now:
        return f"{file} ended at {ends:%Y-%m-%d %H:%M} UTC: clients refuse it; renew it"
    if begins > now:
        return (
            f"{file} is valid from {begins:%Y-%m-%d %H:%M} UTC only: clients refuse it; set the clock of this host, or use"
            " another certificate"
        )
    return ""


def _encoded(public_key: Any) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


class WatchedFiles(Generic[T]):
    """What ``load`` makes of ``files``; it is called again when one of them has changed.

    ``load`` raises :class:`BadTlsFile` for files that cannot be used. So does the constructor; later, the former contents stay in
    use, and each new problem is logged: files that are being written, a certificate before its key, disturb nothing.
    """

    _log = Logger()

    def __init__(self, files: Sequence[PemFile], load: Callable[[], T]) -> None:
        self._files = files
        self._load = load
        self._stamps = self._present_stamps()
        self._value = load()
        self.problem = ""

    def current(self) -> T:
        """Return the present value, after a look at the files: a ``stat`` for each."""
        stamps = self._present_stamps()  # before reading: what changes meanwhile is read at the next look
        if stamps != self._stamps:
            self._stamps = stamps
            self._read_again()
        return self._value

    def _read_again(self) -> None:
        names = ", ".join(f"{each.setting} {each.path}" for each in self._files)
        try:
            self._value = self._load()
        except BadTlsFile as error:
            if str(error) != self.problem:
                self.problem = str(error)
                self._log.error(
                    "changed TLS files are not used, the former contents are: {problem}", problem=self.problem
                )
        else:
            self.problem = ""
            self._log.info("read again, for new connections: {files}", files=names)

    def _present_stamps(self) -> list[tuple[int, ...]]:
        return [_stamp(each.path) for each in self._files]


def _stamp(path: str) -> tuple[int, ...]:
    """Return what changes when a file is written, replaced, or gets other permissions."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
