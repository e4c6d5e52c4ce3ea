"""What every test has: rules of hygiene, a time limit, and private servers for those that ask for one."""

from __future__ import annotations

from importlib.util import find_spec

SERVERS = ("tests.servers.rabbitmq", "tests.servers.postgresql", "tests.servers.libvirt")

pytest_plugins = [
    "pytester",
    "tests.hygiene",
    "tests.time_limit",
    *(name for name in SERVERS if find_spec("tests.servers") and find_spec(name)),
]
