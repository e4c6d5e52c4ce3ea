"""The commands of the page about TLS, run by a shell, and what Meter makes of their files."""

from __future__ import annotations

import inspect
import re
import subprocess
import textwrap
import tomllib
from pathlib import Path

import pytest

from meter.bus.amqp import client
from meter.bus.amqp.url import broker_address
from meter.settings.config_file import parse
from meter.store.postgres.dsn import parsed
from meter.taps.parts.server_tls import configured_tls
from meter.tls import ClientTls
from meter.tls import PemFile
from meter.tls.files import read_certificates
from meter.tls.reasons import ALERTS
from meter.tls.reasons import EXPIRED
from meter.tls.reasons import UNKNOWN_CA
from meter.tls.reasons import other_host
from meter.tls.reasons import refusal

PAGE = Path(__file__).parents[2] / "docs" / "tls.rst"
BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:    .*\n|\n)+)", re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [textwrap.dedent(text) for found, text in BLOCK.findall(PAGE.read_text()) if found == language]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the commands of the page have run."""
    directory = tmp_path_factory.mktemp("trial")
    [commands] = blocks("sh")
    ran = subprocess.run(["sh", "-eu", "-c", commands], cwd=directory, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(": OK") == 4
    return directory


@pytest.mark.parametrize("name", ["rabbit", "db", "api", "meter-collector"])
def test_certificates_of_the_page_can_be_used(made: Path, name: str) -> None:
    files = PemFile("cert_file", str(made / f"{name}.pem")), PemFile("key_file", str(made / f"{name}-key.pem"))
    assert ClientTls(PemFile("ca_file", str(made / "ca.pem")), *files)


def test_settings_of_the_page_are_valid(made: Path) -> None:
    for text in blocks("toml"):
        settings = tomllib.loads(text)
        if "bus" in settings:
            assert broker_address(settings["bus"]["url"]).tls
        elif "store" in settings:
            assert parsed(settings["store"]["dsn"])["sslmode"] == "verify-full"
        else:
            here = text.replace("/etc/meter/tls", str(made))
            tokens = '[api.auth]\nmode = "tokens"\n'
            assert configured_tls(parse(here + tokens, "meter", "page"), "api")


def test_messages_of_the_page_are_those_of_the_code(made: Path) -> None:
    [certificate] = read_certificates(PemFile("cert_file", str(made / "rabbit.pem")))
    said = [str(refusal(certificate, code, "the system's")) for code in (EXPIRED, *UNKNOWN_CA)]
    said += [str(other_host(certificate, "db")), *(meaning for _, meaning in ALERTS), inspect.getsource(client)]
    section = PAGE.read_text(encoding="utf-8").partition("\nError messages\n")[2]
    messages = re.findall(r"^``([^`]+)``(?! \(PostgreSQL\))", section, re.MULTILINE)

    assert messages
    for message in messages:
        pattern = re.escape(message).replace("…", ".+")
        assert any(re.search(pattern, text) for text in said), message
