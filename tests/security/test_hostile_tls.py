"""TLS of the ports: a handshake that never ends holds a connection no longer than a slow request, and odd files stop no port."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.x509.oid import NameOID
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from meter.api import Api
from meter.api import make_site
from meter.daemon.service_manager import NotifySocket
from meter.daemon.status import status_site
from meter.testing import MemoryStore
from meter.tls import BadTlsFile
from meter.tls import ClientTls
from meter.tls import PemFile
from meter.tls import ServerTls
from tests.servers.certificates import Authority

PEER = IPv4Address("TCP", "10.0.0.1", 40000)
LONGEST_SECONDS = 60


class Transport(StringTransport):  # type: ignore[misc]
    """A TCP connection from :data:`PEER`."""

    def __init__(self) -> None:
        super().__init__(peerAddress=PEER)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def abortConnection(self) -> None:
        super().abortConnection()
        self.disconnected = True


class Port:
    """The API or the status pages behind TLS."""

    def __init__(self, kind: str, directory: Path, *, client_ca: bool = False) -> None:
        self.clock = Clock()
        self.authority = Authority(directory)
        own = self.authority.issue("port", "localhost")
        ca = PemFile("client_ca_file", str(self.authority.file)) if client_ca else None
        tls = ServerTls(PemFile("cert_file", str(own.cert_file)), PemFile("key_file", str(own.key_file)), ca)
        if kind == "api":
            self.site: Any = make_site(Api(MemoryStore(), self.clock), self.clock)
        else:
            self.site = status_site([], lambda: b"", "text/plain", self.clock)  # type: ignore[arg-type]
        self._factory: Any = tls.wrapped(self.site, self.clock)

    def connect(self) -> tuple[Any, Transport]:
        protocol, transport = self._factory.buildProtocol(PEER), Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def hello(self) -> bytes:
        """What a client sends first."""
        context = ssl.create_default_context(cafile=str(self.authority.file))
        sent = ssl.MemoryBIO()
        client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        return sent.read()


@pytest.fixture(params=["api", "status", "status with client certificates"])
def port(request: Any, tmp_path: Path) -> Port:
    kind = request.param.partition(" ")[0]
    return Port(kind, tmp_path, client_ca=kind != request.param)


def nothing(hello: bytes) -> Iterator[bytes]:
    while True:
        yield b""


def byte_by_byte(hello: bytes) -> Iterator[bytes]:
    for each in hello[:-1]:
        yield bytes([each])


def half_a_handshake(hello: bytes) -> Iterator[bytes]:
    yield hello
    yield from nothing(hello)


@pytest.mark.parametrize("sent", [nothing, byte_by_byte, half_a_handshake])
def test_handshake_that_does_not_end_is_ended(port: Port, sent: Any) -> None:
    protocol, transport = port.connect()
    for data in sent(port.hello()):
        if data:
            protocol.dataReceived(data)
        port.clock.advance(1)
        if transport.disconnected:
            break
    assert transport.disconnected
    assert port.clock.seconds() <= LONGEST_SECONDS


def test_what_is_no_handshake_ends_the_connection(port: Port) -> None:
    protocol, transport = port.connect()
    protocol.dataReceived(b"GET /healthz HTTP/1.1\r\n" * 5000)
    assert transport.disconnecting
    assert len(transport.value()) < 100


# --- odd files --------------------------------------------------------------------------------------------------------


def weak(directory: Path, kind: str) -> tuple[PemFile, PemFile]:
    """A certificate and its key, both well-formed, that OpenSSL does not take."""
    signer = ec.generate_private_key(ec.SECP256R1())
    key: Any = {
        "short": lambda: rsa.generate_private_key(65537, 1024),
        "weak curve": lambda: ec.generate_private_key(ec.SECP192R1()),
        "not for signatures": x25519.X25519PrivateKey.generate,
    }[kind]()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(signer, hashes.SHA256())
    )
    cert_file, key_file = directory / "weak.crt", directory / "weak.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    key_file.chmod(0o600)
    return PemFile("[api.tls] cert_file", str(cert_file)), PemFile("[api.tls] key_file", str(key_file))


KINDS = ["short", "weak curve", "not for signatures"]


@pytest.mark.parametrize("kind", KINDS)
def test_certificate_that_openssl_does_not_take_is_named(tmp_path: Path, kind: str) -> None:
    certificate, key = weak(tmp_path, kind)
    with pytest.raises(BadTlsFile, match=r"cert_file, .*weak\.crt, is refused by OpenSSL: "):
        ServerTls(certificate, key)
    with pytest.raises(BadTlsFile, match="is refused by OpenSSL: "):
        ClientTls(None, certificate, key)


@pytest.mark.parametrize("kind", KINDS)
def test_renewal_by_a_certificate_that_openssl_does_not_take_leaves_the_former(
    tmp_path: Path, logged_errors: Any, kind: str
) -> None:
    own = Authority(tmp_path).issue("port", "localhost")
    tls = ServerTls(PemFile("cert_file", str(own.cert_file)), PemFile("key_file", str(own.key_file)))
    certificate, key = weak(tmp_path, kind)
    own.cert_file.write_bytes(Path(certificate.path).read_bytes())
    own.key_file.write_bytes(Path(key.path).read_bytes())
    tls.refresh()
    assert len(logged_errors.flush()) == 1
    tls.serverConnectionForTLS(None)


def test_odd_text_of_a_dependency_does_not_stop_the_watchdog(tmp_path: Path) -> None:
    notify = NotifySocket(str(tmp_path / "missing"))
    assert not notify.send("WATCHDOG=1", "STATUS=store: \udcff")
    notify.close()
