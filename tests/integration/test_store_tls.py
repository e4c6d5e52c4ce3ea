"""TLS to a real PostgreSQL, by libpq: what is wrong is told in readiness, and mended without a restart."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from meter.query import SampleFilter
from tests.integration.test_db_archive import in_process
from tests.integration.test_store_connections import running
from tests.servers import not_installed
from tests.servers.certificates import Authority
from tests.servers.certificates import Certificate
from tests.servers.postgresql import INSTALL
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed
from tests.store_messages import message
from tests.waiting import until


class Site:
    """A server that requires the client certificate of its user ``agent``, and the files of one client."""

    def __init__(self, server: PostgreSQL, authority: Authority, served: Path, directory: Path) -> None:
        self.server = server
        self.authority = authority
        self.directory = directory
        self._served = served
        self.ca_file = directory / "root.pem"
        self.trust(authority)
        self.own = authority.issue("agent")
        self.present(authority.issue("server", "localhost"))

    def trust(self, authority: Authority) -> None:
        self.ca_file.write_bytes(authority.file.read_bytes())

    def present(self, certificate: Certificate) -> None:
        """Let the server present another certificate."""
        hold(certificate, self._served)
        if self.server.is_running:
            self.server.execute("SELECT pg_reload_conf()")

    def for_the_server(self, certificate: Certificate, ca: str = "") -> dict[str, Path]:
        """Copy a certificate, its key and its CA to where the server's own user can read them."""
        sources = {"crt": certificate.cert_file, "key": certificate.key_file}
        sources["ca"] = self.directory / ca if ca else self.ca_file
        copies = {name: self._served / f"{certificate.cert_file.stem}-client.{name}" for name in sources}
        for name, source in sources.items():
            copies[name].write_bytes(source.read_bytes())
            copies[name].chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(copies[name], "postgres", "postgres")
        return copies

    def dsn(self, *, own: Certificate | None, **more: str) -> str:
        database = self.server.dsn_with_schema().rpartition("/")[2]
        parameters = {"sslmode": "verify-full", "sslrootcert": str(self.ca_file)}
        if own is not None:
            parameters |= {"sslcert": str(own.cert_file), "sslkey": str(own.key_file)}
        query = "&".join(f"{name}={value}" for name, value in (parameters | more).items())
        return f"postgresql://agent@localhost:{self.server.port}/{database}?{query}"


def hold(certificate: Certificate, served: Path) -> None:
    """Copy a certificate to where the server reads it, as the user that it runs as."""
    for source, name in ((certificate.cert_file, "server.crt"), (certificate.key_file, "server.key")):
        target = served / name
        target.write_bytes(source.read_bytes())
        target.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(target, "postgres", "postgres")


@pytest.fixture(scope="module")
def tls_server(server_directory: Any) -> Iterator[tuple[PostgreSQL, Authority, Path]]:
    binaries = installed()
    if binaries is None:
        not_installed(INSTALL)
    served = server_directory("meter-postgresql-tls-")
    served.chmod(0o755)
    authority = Authority(served)
    hold(authority.issue("first", "localhost"), served)
    settings = {
        "ssl": "on",
        "ssl_cert_file": f"{served}/server.crt",
        "ssl_key_file": f"{served}/server.key",
        "ssl_ca_file": str(authority.file),
    }
    server = PostgreSQL(binaries, server_directory("meter-postgresql-tls-data-"), settings)
    try:
        server.start()
        server.execute("CREATE ROLE agent LOGIN SUPERUSER")
        server.require_certificates("agent")
        yield server, authority, served
    finally:
        server.kill()


@pytest.fixture
def site(tls_server: tuple[PostgreSQL, Authority, Path], tmp_path: Path) -> Site:
    server, authority, served = tls_server
    return Site(server, authority, served, tmp_path)


def encrypted(server: PostgreSQL) -> set[tuple[str, bool]]:
    """Users of the connections to ``server``, and whether they are encrypted."""
    return set(
        server.execute(
            "SELECT usename::text, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE pid <> pg_backend_pid() AND usename = 'agent'"
        )
    )


@pytest_twisted.ensureDeferred
async def test_all_connections_are_verified_and_have_the_client_certificate(site: Site) -> None:
    dsn = site.dsn(own=site.own)
    async with running(dsn, replica_dsn=dsn) as store:
        await store.write([message()])
        assert len(await store.samples(SampleFilter(), 10)) == 1
        assert encrypted(site.server) == {("agent", True)}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("another CA", "certificate verify failed"),
        ("expired", "certificate verify failed"),
        ("another host", 'does not match host name "localhost"'),
        ("no client certificate", "requires a valid client certificate"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_certificate_is_told_and_a_right_one_connects_without_a_restart(
    site: Site, wrong: str, words: str
) -> None:
    own: Certificate | None = site.own
    if wrong == "another CA":
        site.trust(Authority(site.directory, "other"))
    elif wrong == "expired":
        site.present(site.authority.issue("server", "localhost", days=-1))
    elif wrong == "another host":
        site.present(site.authority.issue("server", "db.example.org"))
    else:
        own = None
    async with running(site.dsn(own=own), wait=False) as store:
        await until(lambda: words in store.readiness().reason)
        assert f"localhost:{site.server.port}" in store.readiness().reason
        if own is not None:
            site.trust(site.authority)
            site.present(site.authority.issue("server", "localhost"))
            await until(lambda: store.readiness().ready)


@pytest_twisted.ensureDeferred
async def test_renewed_client_certificate_is_used_by_the_next_connection(site: Site) -> None:
    own = site.authority.issue("renewed-agent", days=-1)
    async with running(site.dsn(own=own), wait=False) as store:
        await until(lambda: "certificate expired" in store.readiness().reason)
        renewed = site.authority.issue("agent")
        own.cert_file.write_bytes(renewed.cert_file.read_bytes())
        own.key_file.write_bytes(renewed.key_file.read_bytes())
        await until(lambda: store.readiness().ready)


@pytest_twisted.ensureDeferred
async def test_commands_and_archive_servers_are_verified_as_well(site: Site, tmp_path: Path, capsys: Any) -> None:
    dsn = site.dsn(own=site.own)
    meter_db = in_process(dsn, tmp_path / "meter.toml", capsys)
    status, out, _ = await meter_db("status", "--json")
    assert (status, json.loads(out)["schema_problem"]) == (0, None)

    site.server.execute("CREATE EXTENSION postgres_fdw", dsn)
    # The main database connects to the archive, so its user reads these files.
    ours = site.for_the_server(site.own)
    archive = site.server.dsn().rpartition("/")[2]
    address = f"postgresql://agent@localhost:{site.server.port}/{archive}"
    certificate = f"sslcert={ours['crt']}&sslkey={ours['key']}"
    other = site.for_the_server(Authority(tmp_path, "other").issue("other"), ca="other.crt")
    for ca_file, expected in ((other["ca"], (2, "certificate verify failed")), (ours["ca"], (0, ""))):
        full = f"{address}?sslmode=verify-full&sslrootcert={ca_file}&{certificate}"
        status, _, errors = await meter_db("archive-server", "add", "cold", full)
        assert (status, expected[1] in errors) == (expected[0], True), errors
    status, out, _ = await meter_db("status", "--json")
    assert [each["state"] for each in json.loads(out)["archive_servers"]] == ["answers"]
