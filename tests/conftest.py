"""What every test has: rules of hygiene, a time limit, and private servers for those that ask for one."""

from __future__ import annotations

pytest_plugins = [
    "pytester",
    "tests.hygiene",
    "tests.time_limit",
    "tests.servers.directories",
    "tests.servers.libvirt",
    "tests.servers.openstack",
    "tests.servers.postgresql",
    "tests.servers.rabbitmq",
]
