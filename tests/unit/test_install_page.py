"""Every block of docs/install.rst is executed by the check or has a reason not to be, and names what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from meter.settings.config_file import parse
from tests.install.checkout import distribution_name
from tests.install.page import TOP
from tests.install.page import blocks
from tests.install.plan import planned
from tests.install.plan import problems
from tests.install.unit_file import parse_unit
from tests.install.unit_file import read_unit

CONFIGURATION = re.compile(r"cat >>? (?:/etc/meter/)?([\w-]+\.toml) <<'EOF'\n(.*?)^EOF$", re.M | re.S)
PROGRAM = re.compile(r"/opt/meter/bin/([\w-]+)")
SETTING_FILE = re.compile(r'_file = "')
SYSTEMCTL = re.compile(r"systemctl enable (?:--now )?(.*)$", re.M)
FROM_DEBIAN = {"rabbitmq-server", "postgresql", "libvirtd"}
FROM_PYTHON = {"pip", "twistd"}

PAGE = """
Region
------

On ``db.example.org``:

.. code-block:: sh

   true

and on ``db.example.org``, likewise ``api.example.org``::

   a picture

.. code-block:: ini

   [x]
"""


def test_every_block_is_in_the_plan() -> None:
    assert list(problems(blocks())) == []
    assert sum(1 for each in planned(blocks()) if each.reason) <= 3


def test_blocks_are_found_with_their_hosts_and_their_places() -> None:
    found = [(block.line, block.section, block.hosts, block.language, block.text) for block in blocks(PAGE)]
    assert found == [
        (9, "Region", ("db",), "sh", "true\n"),
        (13, "Region", ("db", "api"), "literal", "a picture\n"),
        (17, "Region", ("db", "api"), "ini", "[x]\n"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("On ``db.example.org``:\n\n.. code-block:: ini\n\n   [y]\n\n", "language ini"),
        ("On the host:\n\n.. code-block:: sh\n\n   true\n\n", "names no host"),
        ("On ``mars.example.org``:\n\n.. code-block:: sh\n\n   true\n\n", "no host mars"),
    ],
)
def test_a_block_that_the_plan_has_nothing_for_is_seen(text: str, problem: str) -> None:
    assert any(problem in each for each in problems(blocks(text)))


def test_every_configuration_of_the_page_is_valid(tmp_path: Path) -> None:
    found = [match.groups() for block in blocks() for match in CONFIGURATION.finditer(block.text)]
    assert len(found) >= 6
    for name, text in found:
        daemon = "meter-collector" if name.startswith("collector") else "meter"
        without_files = re.sub(r'^(\w+)_file = ".*"$', "", text, flags=re.M)
        with_secrets = without_files.replace("[[signing.keys]]\n", '[[signing.keys]]\nkey = "a secret of the page"\n')
        with_secrets = with_secrets.replace("[openstack.auth]\n", '[openstack.auth]\npassword = "x"\n')
        with_secrets = with_secrets.replace("[api.auth.keystone]\n", '[api.auth.keystone]\npassword = "x"\n')
        parse(with_secrets, daemon, name)


def test_every_program_and_unit_of_the_page_exists() -> None:
    text = "".join(block.text for block in blocks())
    scripts = set(tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["scripts"])
    assert set(PROGRAM.findall(text)) <= scripts | FROM_PYTHON
    units = {unit for names in SYSTEMCTL.findall(text) for unit in names.split()} - FROM_DEBIAN
    for unit in units:
        assert (TOP / "etc/systemd" / f"{re.sub('@.*', '@', unit)}.service").exists(), unit


def test_the_page_installs_this_distribution() -> None:
    text = "".join(block.text for block in blocks())
    name = re.escape(distribution_name())
    assert re.search(rf"pip install '{name}\[all\]'", text)
    assert re.search(rf"pip download --no-deps --no-binary {name} {name}$", text, re.M)


def test_a_unit_is_started_as_its_file_says(tmp_path: Path) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/x").write_text("# comment\nMORE='-a -b'\n")
    text = """[Unit]
After=x
[Service]
Type=notify
ExecStart=/bin/old
ExecStart=
ExecStart=-/bin/x --name %i \\
    $MORE ${ONE}
Environment=ONE=1
EnvironmentFile=-/etc/default/x
EnvironmentFile=-/etc/default/none
User=meter
SupplementaryGroups=libvirt kvm
StateDirectory=meter
StateDirectoryMode=0700
UMask=0077
"""
    unit = parse_unit(text, "x@7", "7", tmp_path)
    assert list(unit.command) == ["/bin/x", "--name", "7", "-a", "-b", "1"]
    assert (unit.user, unit.groups, unit.state_directories) == ("meter", ("libvirt", "kvm"), ("meter",))
    assert (unit.state_mode, unit.umask, unit.starts_others) == (0o700, 0o077, False)


def test_the_units_of_the_project_are_understood(tmp_path: Path) -> None:
    (tmp_path / "etc/systemd").mkdir(parents=True)
    (tmp_path / "etc/systemd/system").symlink_to(TOP / "etc/systemd")
    unit = read_unit(tmp_path, "meter-collector@2")
    assert unit.command[-2:] == ("--config", "/etc/meter/collector-2.toml")
    assert unit.user == "meter"
    with pytest.raises(FileNotFoundError, match="Unit meter-lamp could not be found"):
        read_unit(tmp_path, "meter-lamp")
