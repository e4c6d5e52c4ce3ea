"""What every test has: rules of hygiene, a time limit, and private servers for those that ask for one."""

from __future__ import annotations

from hypothesis import HealthCheck
from hypothesis import settings

# How long an example takes depends on who else is at work.
settings.register_profile("meter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meter")

pytest_plugins = [
    "pytester",
    "tests.hygiene",
    "tests.time_limit",
    "tests.servers.directories",
    "tests.servers.libvirt",
    "tests.servers.mariadb",
    "tests.servers.openstack",
    "tests.servers.postgresql",
    "tests.servers.rabbitmq",
    "tests.servers.gnocchi",  # after that of PostgreSQL, which it imports
    "tests.servers.citus",  # after that of PostgreSQL, which it imports
]
