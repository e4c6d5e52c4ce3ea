"""Keystone and Glance over HTTPS: whom the agent believes, who it is to them, and what it says when that fails."""

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

from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.http import LimitedHttpClient
from meter.http import Limits
from meter.http.exchange import HttpClient
from meter.http.tls import Policy
from meter.interfaces import Unavailable
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import Keystone
from meter.openstack import Listing
from meter.openstack.credentials import BadCredentials
from meter.openstack.credentials import Tls
from meter.openstack.validation import validating_keystone
from tests.servers.certificates import Authority
from tests.servers.certificates import Certificate as Issued

# Twisted 26.10 hands certificates to pyOpenSSL 26 in a form that this will not take for ever.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

IMAGES = Listing(service="image", version="v2", path="images", key="images")


class Service(Resource):
    """Keystone, and the Glance that its catalogue names."""

    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.asked = 0

    def render_POST(self, request: Any) -> bytes:
        self.asked += 1
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
    """Serve over TLS with a certificate, to anybody or to those that ``clients`` has signed; return the URL."""
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
    """Ask Keystone for a token and Glance for its images, as the daemon does."""
    from twisted.internet import reactor

    files = {name: str(value) for name, value in tls.items() if name != "insecure"}
    policy = Policy(Tls(**files, insecure="insecure" in tls))
    agent = Agent(reactor, contextFactory=policy, pool=HTTPConnectionPool(reactor, persistent=False))
    asking = LimitedHttpClient(HttpClient(HTTPClient(agent), reactor), reactor, limits=Limits(attempts=1))

    async def send(request: HttpRequest) -> HttpResponse:
        return await asking.exchange("identity", request)

    cloud = Cloud(asking, Keystone(send, Credentials(auth_url=url, token="t"), reactor))
    return [item async for page in cloud.pages(IMAGES) for item in page.items]


@pytest_twisted.ensureDeferred
async def test_an_authority_of_ones_own_is_believed(serve: Serve, authority: Authority) -> None:
    url = serve(authority.issue("keystone", "localhost"))
    assert await images(url, ca_file=authority.file) == [{"id": "one"}]


@pytest_twisted.ensureDeferred
async def test_an_address_is_as_good_as_a_name(serve: Serve, authority: Authority) -> None:
    url = serve(authority.issue("keystone", "127.0.0.1"), host="127.0.0.1")
    assert await images(url, ca_file=authority.file) == [{"id": "one"}]


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_ones_own_is_shown(serve: Serve, authority: Authority) -> None:
    url = serve(authority.issue("keystone", "localhost"), clients=authority)
    ours = authority.issue("meter")
    assert await images(url, ca_file=authority.file, cert_file=ours.cert_file, key_file=ours.key_file)


@pytest_twisted.ensureDeferred
async def test_certificate_and_key_may_stand_in_one_file(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    url = serve(authority.issue("keystone", "localhost"), clients=authority)
    ours = authority.issue("meter")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.cert_file.read_bytes() + ours.key_file.read_bytes())
    assert await images(url, ca_file=authority.file, cert_file=both)


@pytest_twisted.ensureDeferred
async def test_who_is_insecure_believes_anybody(serve: Serve, authority: Authority) -> None:
    assert await images(serve(authority.issue("keystone", "elsewhere", days=-1)), insecure=True) == [{"id": "one"}]


@pytest.mark.parametrize(
    ("days", "host", "ca", "words"),
    [
        (1, "localhost", "other", "no authority that is known here (ca_file) has signed it"),
        (1, "localhost", "", "no authority that is known here (ca_file) has signed it"),
        (-1, "localhost", "authority", "it has expired"),
        (1, "keystone.example.org", "authority", "its certificate is for another host"),
    ],
    ids=["an authority that others believe", "the system's authorities", "an expired certificate", "another host's"],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_not_believed_is_told_with_the_reason(
    serve: Serve, service: Service, authority: Authority, tmp_path: Path, days: float, host: str, ca: str, words: str
) -> None:
    url = serve(authority.issue("keystone", host, days=days))
    files = {"other": Authority(tmp_path, "other").file, "authority": authority.file, "": ""}
    with pytest.raises(Unavailable) as caught:
        await images(url, ca_file=files[ca])
    assert str(caught.value).startswith(f"POST {url}/v3/auth/tokens: ")
    assert words in str(caught.value)
    assert not service.asked  # the password was told to nobody


@pytest_twisted.ensureDeferred
async def test_a_service_that_wants_a_certificate_and_gets_none_is_told(serve: Serve, authority: Authority) -> None:
    url = serve(authority.issue("keystone", "localhost"), clients=authority)
    with pytest.raises(Unavailable, match="certificate required"):
        await images(url, ca_file=authority.file)


@pytest_twisted.ensureDeferred
async def test_the_api_believes_the_same_authority_when_it_asks_about_tokens(
    serve: Serve, authority: Authority
) -> None:
    from twisted.internet import reactor

    url = serve(authority.issue("keystone", "localhost"))
    account = {"auth_url": url, "username": "meter", "password": "p"}
    known = await validating_keystone(reactor, Tls(ca_file=str(authority.file)), **account).validate("anybody's")
    assert known is not None
    assert known.user_id == "ann"
    with pytest.raises(Unavailable, match="its certificate is not believed"):
        await validating_keystone(reactor, Tls(), **account).validate("anybody's")
    with pytest.raises(BadCredentials, match="No such file"):
        validating_keystone(reactor, Tls(ca_file="/nowhere"), **account)


def test_files_that_cannot_be_used_are_told_before_anybody_is_asked(authority: Authority, tmp_path: Path) -> None:
    ours, other = authority.issue("meter"), authority.issue("other")
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    for wrong, words in [
        (Tls(ca_file=str(tmp_path / "missing")), "No such file"),
        (Tls(ca_file=str(empty)), "holds no certificate in PEM"),
        (Tls(cert_file=str(empty), key_file=str(ours.key_file)), "empty.pem"),
        (Tls(cert_file=str(ours.cert_file), key_file=str(other.key_file)), "do not match"),
    ]:
        with pytest.raises(BadCredentials, match=words):
            Policy(wrong)
