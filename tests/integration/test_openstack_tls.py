"""Keystone and Glance over HTTPS: verification of the server, the client certificate, and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.internet.defer import maybeDeferred
from twisted.internet.ssl import Certificate
from twisted.internet.ssl import CertificateOptions
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.ssl import trustRootFromCertificates
from twisted.web.client import Agent
from twisted.web.client import HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import Site

from meter.http import BadTlsFile
from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.http import TlsOptions
from meter.http.client import HttpClient
from meter.http.tls import TlsPolicy
from meter.interfaces import Unavailable
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import Keystone
from meter.openstack import Listing
from meter.openstack.validation import validating_keystone
from tests.servers.certificates import Authority
from tests.servers.certificates import Certificate as Issued

# Twisted 26.10 hands certificates to pyOpenSSL 26 in a form that this will not take for ever.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

IMAGES = Listing(service="image", version="v2", path="images", key="images")


class Service(Resource):
    """Keystone and the Glance in its catalogue."""

    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.requests = 0

    def render_POST(self, request: Any) -> bytes:
        self.requests += 1
        request.setResponseCode(201)
        request.setHeader("X-Subject-Token", "t")
        return self._token()

    def render_GET(self, request: Any) -> bytes:
        return self._token() if b"tokens" in request.path else b'{"images": [{"id": "one"}]}'

    def _token(self) -> bytes:
        times = {"issued_at": "2026-11-22T16:40:16Z", "expires_at": "2026-11-22T17:40:16Z"}
        endpoint = {"interface": "public", "url": self.url, "region": "R"}
        catalog = [{"type": "image", "endpoints": [endpoint]}]
        return msgspec.json.encode({"token": {**times, "user": {"id": "ann"}, "catalog": catalog}})


Serve = Callable[..., str]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest_twisted.async_yield_fixture
async def serve(service: Service) -> AsyncIterator[Serve]:
    """Serve over TLS with a certificate; ``clients`` is the CA of required client certificates. Return the URL."""
    from twisted.internet import reactor

    ports = []

    def listen(issued: Issued, *, host: str = "localhost", clients: Authority | None = None) -> str:
        pem = issued.cert_file.read_bytes() + issued.key_file.read_bytes()
        ours = PrivateCertificate.loadPEM(pem)
        trusted = trustRootFromCertificates([Certificate.loadPEM(clients.file.read_bytes())]) if clients else None
        options = CertificateOptions(privateKey=ours.privateKey.original, certificate=ours.original, trustRoot=trusted)
        port = reactor.listenSSL(0, Site(service), options, interface="127.0.0.1")  # type: ignore[attr-defined]
        ports.append(port)
        service.url = f"https://{host}:{port.getHost().port}"
        return service.url

    yield listen
    for port in ports:
        await maybeDeferred(port.stopListening)


async def images(url: str, **tls: Any) -> list[Any]:
    """Get a token from Keystone and the images from Glance, as the daemon does."""
    from twisted.internet import reactor

    files = {name: str(value) for name, value in tls.items() if name != "insecure"}
    policy = TlsPolicy(TlsOptions(**files, insecure="insecure" in tls))
    agent = Agent(reactor, contextFactory=policy, pool=HTTPConnectionPool(reactor, persistent=False))
    client = LimitedHttpClient(HttpClient(HTTPClient(agent), reactor), reactor, limits=ServiceLimits(attempts=1))

    async def send(request: HttpRequest) -> HttpResponse:
        return await client.send("identity", request)

    cloud = Cloud(client, Keystone(send, Credentials(auth_url=url, token="t"), reactor))
    return [item async for page in cloud.pages(IMAGES) for item in page.items]


@pytest_twisted.ensureDeferred
async def test_server_with_a_certificate_from_ca_file_is_accepted(serve: Serve, authority: Authority) -> None:
    url = serve(authority.issue("keystone", "localhost"))
    assert await images(url, ca_file=authority.file) == [{"id": "one"}]


@pytest_twisted.ensureDeferred
async def test_certificate_for_an_ip_address_is_accepted(serve: Serve, authority: Authority) -> None:
    url = serve(authority.issue("keystone", "127.0.0.1"), host="127.0.0.1")
    assert await images(url, ca_file=authority.file) == [{"id": "one"}]


@pytest_twisted.ensureDeferred
async def test_client_certificate_is_sent(serve: Serve, authority: Authority) -> None:
    url = serve(authority.issue("keystone", "localhost"), clients=authority)
    ours = authority.issue("meter")
    assert await images(url, ca_file=authority.file, cert_file=ours.cert_file, key_file=ours.key_file)


@pytest_twisted.ensureDeferred
async def test_client_certificate_and_key_may_be_in_one_file(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    url = serve(authority.issue("keystone", "localhost"), clients=authority)
    ours = authority.issue("meter")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.cert_file.read_bytes() + ours.key_file.read_bytes())
    assert await images(url, ca_file=authority.file, cert_file=both)


@pytest_twisted.ensureDeferred
async def test_insecure_accepts_any_certificate(serve: Serve, authority: Authority) -> None:
    assert await images(serve(authority.issue("keystone", "elsewhere", days=-1)), insecure=True) == [{"id": "one"}]


@pytest.mark.parametrize(
    ("days", "host", "ca", "words"),
    [
        (1, "localhost", "other", "other.crt) has signed it, its issuer is CN=authority"),
        (1, "localhost", "", "no trusted CA (the system's, as no file of CAs is set) has signed it"),
        (-1, "localhost", "authority", "it has expired"),
        (1, "keystone.example.org", "authority", "the server's certificate is for another host"),
    ],
    ids=["another CA", "the system's CAs", "an expired certificate", "a certificate for another host"],
)
@pytest_twisted.ensureDeferred
async def test_unverifiable_certificate_is_unavailable_with_the_reason(
    serve: Serve, service: Service, authority: Authority, tmp_path: Path, days: float, host: str, ca: str, words: str
) -> None:
    url = serve(authority.issue("keystone", host, days=days))
    files = {"other": Authority(tmp_path, "other").file, "authority": authority.file, "": ""}
    with pytest.raises(Unavailable) as caught:
        await images(url, ca_file=files[ca])
    assert str(caught.value).startswith(f"POST {url}/v3/auth/tokens: ")
    assert words in str(caught.value)
    assert not service.requests  # the password was not sent


@pytest_twisted.ensureDeferred
async def test_missing_client_certificate_is_unavailable_with_the_reason(serve: Serve, authority: Authority) -> None:
    url = serve(authority.issue("keystone", "localhost"), clients=authority)
    with pytest.raises(Unavailable, match="certificate required"):
        await images(url, ca_file=authority.file)


@pytest_twisted.ensureDeferred
async def test_token_validation_verifies_keystone_with_ca_file(serve: Serve, authority: Authority) -> None:
    from twisted.internet import reactor

    url = serve(authority.issue("keystone", "localhost"))
    account = {"auth_url": url, "username": "meter", "password": "p"}
    known = await validating_keystone(reactor, TlsOptions(ca_file=str(authority.file)), **account).validate("anybody's")
    assert known is not None
    assert known.user_id == "ann"
    with pytest.raises(Unavailable, match=r"the server.s certificate, CN=keystone, cannot be verified"):
        await validating_keystone(reactor, TlsOptions(), **account).validate("anybody's")
    with pytest.raises(BadTlsFile, match="No such file"):
        validating_keystone(reactor, TlsOptions(ca_file="/nowhere"), **account)


def test_unusable_certificate_files_fail_before_any_request(authority: Authority, tmp_path: Path) -> None:
    ours, other = authority.issue("meter"), authority.issue("other")
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    for wrong, words in [
        (TlsOptions(ca_file=str(tmp_path / "missing")), "No such file"),
        (TlsOptions(ca_file=str(empty)), "contains no PEM certificate"),
        (TlsOptions(cert_file=str(empty), key_file=str(ours.key_file)), "empty.pem"),
        (TlsOptions(cert_file=str(ours.cert_file), key_file=str(other.key_file)), "do not match"),
    ]:
        with pytest.raises(BadTlsFile, match=words):
            TlsPolicy(wrong)
