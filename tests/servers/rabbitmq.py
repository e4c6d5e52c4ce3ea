"""A private RabbitMQ for tests: Debian's package on free ports in a temporary directory, never a server that happens to run.

``rabbitmq`` is one server for the whole run; each test takes a virtual host of its own from it. Tests that stop or
kill the server start it again. Its methods block; in a test that must go on meanwhile: ``deferToThread(rabbitmq.restart)``.
"""

from __future__ import annotations

import datetime
import glob
import ipaddress
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.defer import maybeDeferred

from meter.bus.amqp import AmqpBus
from meter.bus.amqp.client import Client
from meter.bus.amqp.client import ClientFactory
from meter.bus.amqp.url import broker_address
from tests.ports import free_port
from tests.servers import not_installed

# The scripts in /usr/sbin insist on the system's own server and user; those of the release do not.
RELEASES = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"
INSTALL = "RabbitMQ is not installed: apt-get install --no-install-recommends rabbitmq-server"
START_SECONDS = 180.0
STOP_SECONDS = 60.0
CALL_SECONDS = 30.0


class RabbitMQ:
    """One private server. ``url`` is its ``/`` virtual host, ``ca_file`` what its certificate is signed with.

    With ``client_ca`` its TLS port requires client certificates of that CA, and accepts them with the mechanism EXTERNAL as the
    user that their common name names. ``cookie``: what the nodes of a cluster have in common. ``arguments`` are further ones of Erlang.
    """

    def __init__(
        self, sbin: Path, directory: Path, client_ca: Path | None = None, *, cookie: str = "", arguments: str = ""
    ) -> None:
        self._sbin = sbin
        self._directory = directory
        self.port, self.tls_port, self.distribution_port, self.epmd_port = (free_port() for _ in range(4))
        self.node = f"meter-{os.getpid()}-{self.port}@localhost"
        self._cookie = cookie or secrets.token_hex(16)
        self._vhosts = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self.url = self._url("%2F")
        self.ca_file = directory / "certificate.pem"
        cookie_file = directory / ".erlang.cookie"
        cookie_file.write_text(self._cookie)
        cookie_file.chmod(0o400)
        _write_certificate(self.ca_file, directory / "key.pem")
        (directory / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl]." if client_ca else "[].")
        clients = (
            f"ssl_options.cacertfile = {client_ca}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = true\n"
            "ssl_cert_login_from = common_name\n"
            "auth_mechanisms.1 = PLAIN\n"
            "auth_mechanisms.2 = EXTERNAL\n"
        )
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.certfile = {self.ca_file}\n"
            f"ssl_options.keyfile = {directory / 'key.pem'}\n"
            "disk_free_limit.absolute = 1MB\n"
            "vm_memory_high_watermark.absolute = 1GB\n" + (clients if client_ca else "")
        )
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(directory),
            "ERL_CRASH_DUMP": str(directory / "erl_crash.dump"),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            # One scheduler that does not spin: the tests need the processors themselves.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            f" {arguments}",
        }

    def configure(self, settings: str) -> None:
        """Add lines to ``rabbitmq.conf``, for the next start."""
        with (self._directory / "rabbitmq.conf").open("a") as file:
            file.write(settings)

    @property
    def pid(self) -> int:
        """The id of the server's process, the parent of all others."""
        assert self._server is not None
        return self._server.pid

    @property
    def accepts(self) -> bool:
        """Whether its port is open."""
        return _accepts(self.port)

    def vhost(self, *, tls: bool = False) -> str:
        """Make an empty virtual host and return its URL."""
        self._vhosts += 1
        name = f"test-{self._vhosts}"
        self.call(
            f'rabbit_vhost:add(<<"{name}">>, <<"test">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).'
        )
        return self._url(name, tls=tls)

    def user_url(self, url: str, name: str, configure: str, write: str, read: str) -> str:
        """Make a user of the virtual host of ``url`` that has these permissions, and return its URL."""
        user, vhost = f"{name}-{secrets.token_hex(4)}", url.rpartition("/")[2]
        patterns = ", ".join(f'<<"{each}">>'.replace("\\", "\\\\") for each in (configure, write, read))
        self.call(
            f'rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"{user}">>, <<"test">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{vhost}">>, {patterns}, <<"test">>).'
        )
        return f"amqp://{user}:{user}@127.0.0.1:{self.port}/{vhost}"

    def add_user(self, name: str) -> None:
        """Add a user without a password, who may do nothing yet."""
        self.call(f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"">>, <<"test">>).')

    def allow(self, name: str) -> None:
        """Allow a user everything in the newest virtual host."""
        self.call(
            f'rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"test-{self._vhosts}">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).'
        )

    def present(self, certificate_file: Path, key_file: Path) -> None:
        """Present another certificate to new connections."""
        self.ca_file.write_bytes(certificate_file.read_bytes())
        (self._directory / "key.pem").write_bytes(key_file.read_bytes())
        self.call("ssl:clear_pem_cache().")

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` (it takes two seconds) and return what it printed."""
        command = [str(self._sbin / "rabbitmqctl"), "-q", "-n", self.node, *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, f"rabbitmqctl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def start_name_server(self) -> None:
        """Start what tells other nodes the port of this one, unless it runs."""
        if self._epmd is None:
            self._epmd = subprocess.Popen(
                ["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            _until_accepting(self._epmd, self.epmd_port)

    def start(self) -> None:
        """Start the server and return once it accepts connections; its durable queues are as they were."""
        self.start_name_server()
        with (self._directory / "output.log").open("ab") as output:
            self._server = subprocess.Popen(
                [str(self._sbin / "rabbitmq-server")],
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not _accepts(self.tls_port):
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"RabbitMQ did not start:\n{(self._directory / 'output.log').read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server as its administrator would."""
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._server = None

    def kill(self) -> None:
        """End the server as a power cut would."""
        if self._server is not None:
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def freeze(self) -> None:
        """Let it hang: connections stay open and nothing is answered."""
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after :meth:`freeze`."""
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the server and the name server that it needed."""
        self.kill()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait()
            self._epmd = None

    def call(self, expressions: str) -> None:
        """Evaluate Erlang inside the server: milliseconds, where ``rabbitmqctl`` takes seconds. The last value must be ``ok``.

        On a busy machine a node that has just started may be connected to only at the second attempt; until then nothing is evaluated.
        """
        deadline = time.monotonic() + CALL_SECONDS
        while True:
            done = subprocess.run(
                ["erl_call", "-n", self.node, "-c", self._cookie, "-e"],
                input=expressions + "\n",
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if "failed to connect to node" not in done.stderr or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert done.returncode == 0, f"{expressions} {done.stdout}{done.stderr}"
        assert done.stdout.startswith("{ok, ok}"), f"{expressions} {done.stdout}{done.stderr}"

    def _url(self, vhost: str, *, tls: bool = False) -> str:
        if tls:
            return f"amqps://guest:guest@localhost:{self.tls_port}/{vhost}?cacertfile={self.ca_file}"
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"


def _until_accepting(epmd: subprocess.Popen[bytes], port: int) -> None:
    """Wait until ``epmd`` accepts connections: a server that finds none starts one of its own, which outlives it."""
    deadline = time.monotonic() + START_SECONDS
    while not _accepts(port):
        if epmd.poll() is not None or time.monotonic() > deadline:
            epmd.kill()
            raise RuntimeError(f"epmd does not accept connections on port {port}")
        time.sleep(0.01)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _write_certificate(certificate_file: Path, key_file: Path) -> None:
    """Write a self-signed certificate of ``localhost`` and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def installed() -> Path | None:
    """Return where the newest installed RabbitMQ has its programs."""
    releases = sorted(glob.glob(RELEASES))
    if not releases or not shutil.which("erl_call") or not shutil.which("epmd"):
        return None
    return Path(releases[-1])


@pytest.fixture(scope="session")
def rabbitmq(server_directory: Callable[[str], Path]) -> Iterator[RabbitMQ]:
    """A running private RabbitMQ; skips where none is installed, fails there with ``METER_REQUIRE_SERVERS=1``."""
    sbin = installed()
    if sbin is None:
        not_installed(INSTALL)
    server = RabbitMQ(sbin, server_directory("meter-rabbitmq-"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def amqp_bus(rabbitmq: RabbitMQ) -> Iterator[Callable[..., AmqpBus]]:
    """Makes buses, each started and stopped after the test: ``amqp_bus(url, window=10)``; without URL on one new virtual host."""
    from twisted.internet import reactor

    buses: list[AmqpBus] = []
    own_url: list[str] = []

    def make(url: str | None = None, **arguments: Any) -> AmqpBus:
        if url is None:
            if not own_url:
                own_url.append(rabbitmq.vhost())
            [url] = own_url
        bus = AmqpBus(reactor, url, clock=reactor, **arguments)
        bus.startService()
        buses.append(bus)
        return bus

    yield make
    for bus in reversed(buses):
        pytest_twisted.blockon(maybeDeferred(bus.stopService))


@pytest.fixture
def amqp_client(rabbitmq: RabbitMQ) -> Iterator[Callable[[str], Awaitable[Client]]]:
    """Makes bare connections, closed after the test: ``client = await amqp_client(url)``."""
    from twisted.internet import reactor

    clients: list[Client] = []

    async def make(url: str) -> Client:
        address = broker_address(url)

        def client() -> Client:
            return Client(
                address,
                clock=reactor,
                connection_name="test",
                heartbeat_seconds=10,
                max_body_bytes=1 << 24,
                kept_bytes=1 << 16,
            )

        connected: Client = await address.endpoint(reactor).connect(ClientFactory(client))
        clients.append(connected)
        await connected.open()
        return connected

    yield make
    for each in clients:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close(2)))
