"""TLS on a listening port, with clients of Python's ssl module: who is refused, and how a certificate is renewed."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import AsyncIterator
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread

from meter.commands.doctor.status_pages import fetched
from meter.daemon.ports import Port
from meter.daemon.status import status_site
from meter.tls import BadTlsFile
from meter.tls import PemFile
from meter.tls import ServerTls
from tests.servers.certificates import Authority
from tests.servers.certificates import Certificate
from tests.waiting import until


class Client:
    """A client that trusts ``authority``, with a certificate if ``own`` is given, and keeps its connection."""

    def __init__(self, port: int, authority: Authority, own: Certificate | None = None, **limits: Any) -> None:
        context = ssl.create_default_context(cafile=str(authority.file))
        if own is not None:
            context.load_cert_chain(own.cert_file, own.key_file)
        for name, value in limits.items():
            setattr(context, name, value)
        self.port = port
        self._connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)

    async def get(self, path: str = "/healthz") -> int:
        """Return the status of a response; connects first if there is no connection."""

        def ask() -> int:
            self._connection.request("GET", path)
            response = self._connection.getresponse()
            response.read()
            return response.status

        return await deferToThread(ask)

    def serial(self) -> int:
        """The number of the certificate that this connection has seen."""
        return int(self._connection.sock.getpeercert()["serialNumber"], 16)

    def close(self) -> None:
        self._connection.close()


class Files:
    """The files of a port."""

    def __init__(self, directory: Path) -> None:
        self.cert_file, self.key_file = directory / "port.pem", directory / "port-key.pem"

    def hold(self, certificate: Certificate) -> None:
        self.cert_file.write_bytes(certificate.cert_file.read_bytes())
        self.hold_key(certificate)

    def hold_key(self, certificate: Certificate) -> None:
        self.key_file.write_bytes(certificate.key_file.read_bytes())
        self.key_file.chmod(0o600)

    def tls(self, client_ca: Path | None = None) -> ServerTls:
        ca = PemFile("[status.tls] client_ca_file", str(client_ca)) if client_ca else None
        cert, key = str(self.cert_file), str(self.key_file)
        return ServerTls(PemFile("[status.tls] cert_file", cert), PemFile("[status.tls] key_file", key), ca)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    files = Files(tmp_path)
    files.hold(authority.issue("port", "localhost"))
    return files


Connect = Callable[..., Client]


@pytest_twisted.async_yield_fixture
async def serve() -> AsyncIterator[Callable[[ServerTls], Any]]:
    """Serve the status pages with TLS; the returned function makes clients of the port."""
    from twisted.internet import reactor

    services: list[Port] = []
    clients: list[Client] = []

    async def start(tls: ServerTls) -> Connect:
        site = status_site([], lambda: b"", "text/plain", reactor)  # type: ignore[arg-type]
        port = Port("tcp:0:interface=127.0.0.1", site, name="status", reactor=reactor, clock=reactor, tls=tls)  # type: ignore[arg-type]
        port.startService()
        services.append(port)
        await until(lambda: port.ready)
        assert port.readiness().reason.endswith(" with TLS")

        def connect(authority: Authority, own: Certificate | None = None, **limits: Any) -> Client:
            client = Client(port.port.getHost().port, authority, own, **limits)  # type: ignore[union-attr]
            clients.append(client)
            return client

        return connect

    yield start
    for client in clients:
        client.close()
    for service in services:
        await maybeDeferred(service.stopService)


@pytest_twisted.ensureDeferred
async def test_port_presents_its_certificate(serve: Any, files: Files, authority: Authority) -> None:
    connect = await serve(files.tls())
    assert await connect(authority).get() == 200


@pytest_twisted.ensureDeferred
async def test_doctor_reads_the_status_page_of_this_host_whatever_name_the_certificate_has(
    serve: Any, files: Files, authority: Authority
) -> None:
    files.hold(authority.issue("port", "collector1.example.org"))
    connect = await serve(files.tls())
    url = f"https://127.0.0.1:{connect(authority).port}/readyz"
    assert await deferToThread(fetched, url) == {"ready": True, "degraded": False, "dependencies": []}


@pytest.mark.parametrize(
    ("hosts", "days", "words"),
    [(["localhost"], -1.0, "has expired"), (["example.org"], 1.0, "Hostname mismatch")],
    ids=["expired", "another host"],
)
@pytest_twisted.ensureDeferred
async def test_client_refuses_a_wrong_certificate_and_accepts_the_next(
    serve: Any, files: Files, authority: Authority, hosts: list[str], days: float, words: str
) -> None:
    files.hold(authority.issue("wrong", *hosts, days=days))
    connect = await serve(files.tls())
    with pytest.raises(ssl.SSLCertVerificationError, match=words):
        await connect(authority).get()
    files.hold(authority.issue("right", "localhost"))
    assert await connect(authority).get() == 200


@pytest_twisted.ensureDeferred
async def test_client_of_another_ca_is_not_served(serve: Any, files: Files, tmp_path: Path) -> None:
    connect = await serve(files.tls())
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        await connect(Authority(tmp_path, "other")).get()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_tls_older_than_1_2_is_refused(serve: Any, files: Files, authority: Authority) -> None:
    connect = await serve(files.tls())
    assert await connect(authority, maximum_version=ssl.TLSVersion.TLSv1_2).get() == 200
    context = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}
    client = connect(authority, **context)
    client._connection._context.set_ciphers("ALL:@SECLEVEL=0")  # type: ignore[attr-defined]
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol version|unsupported"):
        await client.get()
    # OpenSSL's own security level may refuse it, too: so look at the options.
    options = files.tls()._context()[0].set_options(0)
    assert options & SSL.OP_NO_TLSv1
    assert options & SSL.OP_NO_TLSv1_1


@pytest_twisted.ensureDeferred
async def test_client_certificate_is_required_where_a_ca_of_clients_is_set(
    serve: Any, files: Files, authority: Authority, tmp_path: Path
) -> None:
    connect = await serve(files.tls(client_ca=authority.file))
    assert await connect(authority, authority.issue("prometheus")).get() == 200
    for wrong in (None, Authority(tmp_path, "other").issue("prometheus"), authority.issue("prometheus", days=-1)):
        # With TLS 1.3 a client learns that it was refused when it reads.
        with pytest.raises(OSError, match=r"(?i)alert|reset|closed|EOF"):
            await connect(authority, wrong).get()


@pytest_twisted.ensureDeferred
async def test_renewed_certificate_is_for_new_connections_and_open_ones_stay(
    serve: Any, files: Files, authority: Authority
) -> None:
    connect = await serve(files.tls())
    before = connect(authority)
    assert await before.get() == 200
    renewed = authority.issue("renewed", "localhost")
    files.hold(renewed)
    after = connect(authority)
    assert await after.get() == 200
    assert await before.get() == 200
    assert after.serial() == renewed.certificate.serial_number
    assert before.serial() != after.serial()


@pytest_twisted.ensureDeferred
async def test_certificate_that_is_written_before_its_key_interrupts_nothing(
    serve: Any, files: Files, authority: Authority, logged_errors: Any
) -> None:
    connect = await serve(files.tls())
    renewed = authority.issue("renewed", "localhost")
    files.cert_file.write_bytes(renewed.cert_file.read_bytes())
    for _ in range(2):
        assert await connect(authority).get() == 200
    [event] = logged_errors.flush()  # told once
    assert "they do not match" in event["problem"]
    files.hold_key(renewed)
    after = connect(authority)
    assert await after.get() == 200
    assert after.serial() == renewed.certificate.serial_number


def _emptied(files: Files) -> None:
    files.cert_file.write_text("")


def _cut(files: Files) -> None:
    files.cert_file.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")


def _without_key(files: Files) -> None:
    files.key_file.unlink()


def _opened(files: Files) -> None:
    files.key_file.chmod(0o644)


def _certificate_as_key(files: Files) -> None:
    files.key_file.write_bytes(files.cert_file.read_bytes())
    files.key_file.chmod(0o644)


def _encrypted(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(files.key_file.read_bytes(), None)
    secret = form.BestAvailableEncryption(b"secret")
    files.key_file.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, secret))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_emptied, "[status.tls] cert_file, {cert}, contains no PEM certificate"),
        (_cut, "[status.tls] cert_file, {cert}, contains a damaged certificate"),
        (_without_key, "[status.tls] key_file, {key}, cannot be read: No such file"),
        (_opened, "[status.tls] key_file, {key}, has mode 0644: every user can read the key"),
        (
            _certificate_as_key,
            "[status.tls] key_file, {key}, contains no PEM private key, only certificates: name the file",
        ),
        (_encrypted, "[status.tls] key_file, {key}, contains an encrypted key"),
    ],
)
def test_unusable_file_is_named_with_the_reason(files: Files, spoil: Callable[[Files], None], words: str) -> None:
    spoil(files)
    with pytest.raises(BadTlsFile) as refused:
        files.tls()
    assert str(refused.value).startswith(words.format(cert=files.cert_file, key=files.key_file))


def test_key_that_the_group_may_read_is_accepted(files: Files) -> None:
    files.key_file.chmod(0o640)
    assert files.tls()


def test_certificate_outside_its_time_is_told(files: Files) -> None:
    tls, now = files.tls(), datetime.now(UTC)
    assert tls.validity_problem(now) == ""
    late, early = tls.validity_problem(now + timedelta(days=9)), tls.validity_problem(now - timedelta(days=9))
    assert late.startswith(f"[status.tls] cert_file, {files.cert_file}, ended at ")
    assert early.startswith(f"[status.tls] cert_file, {files.cert_file}, is valid from ")
