"""The settings that every daemon has: its place, the bus, the keys, plugins, and seeing inside."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import Field
from pydantic import SecretStr

from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section
from meter.units import older_name


class MeterSection(Section):
    """What all daemons share."""

    state_dir: str = Field(
        default="/var/lib/meter",
        description="Where a daemon keeps what must survive it: spool, embedded database, generated key.",
    )
    source: str = Field(
        default="openstack", min_length=1, description="The source named in samples that say nothing else."
    )


class BusSection(Section):
    """The message bus."""

    url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        description='RabbitMQ as amqp:// or amqps://, or "local:" inside twistd meter, whose default that is.',
    )
    url_file: str = Field(default="", description="A file that holds the URL, instead of url.")
    queue_type: Literal["classic", "quorum"] = Field(
        default="classic", description="How our durable queues are declared; existing ones stay as they are."
    )
    heartbeat_seconds: Count = Field(default=20, description="A connection silent for three of these is dead.")
    window: Count = Field(default=100, description="Messages published and not yet confirmed, at most.")
    confirm_timeout_seconds: Seconds = Field(
        default=30.0, description="A broker that confirms nothing for so long is left and reconnected."
    )
    prefetch: Count = Field(default=200, description="Messages delivered and not yet acknowledged, at most, per queue.")
    largest_body_bytes: Count = Field(
        default=16 * 1024 * 1024, description="Larger messages are not published, and set aside when they arrive."
    )


class SigningKeySection(Section):
    """One of several signing keys."""

    id: str = Field(min_length=1, max_length=64, description="Names the key in messages and in the store.")
    key: SecretStr | None = Field(default=None, description="The shared secret.")
    key_file: str = Field(default="", description="A file that holds it.")
    not_before: datetime | None = Field(default=None, description="Samples measured earlier may not be signed with it.")
    not_after: datetime | None = Field(default=None, description="Nor those measured at this time or later.")


class SigningSection(Section):
    """The secrets that sign and verify metering messages."""

    key: SecretStr | None = Field(
        default=None,
        description="The shared secret of all agents and collectors. Without any key, state_dir/signing.key is used, and made at the first start.",
    )
    key_file: str = Field(default="", description="A file that holds it.")
    keys: list[SigningKeySection] = Field(
        default_factory=list,
        description="Several keys, for rotation: all are accepted, the first that covers a sample's time signs it.",
    )
    accept_unsigned: bool = Field(default=False, description="Store messages that carry no signature at all.")


class UnitsSection(Section):
    """Names of units in the samples that Meter makes."""

    binary: bool = Field(
        default=True,
        description="Name powers of 1024 KiB, MiB, GiB, as Ceilometer 26 and newer do; false: KB, MB, GB, as before. Volumes do not change.",
    )

    @property
    def name_of(self) -> Callable[[str], str] | None:
        """The function that renames units of samples; ``None`` if units keep their names."""
        return None if self.binary else older_name


class PluginsSection(Section):
    """Which of the installed plugins work."""

    disable: list[str] = Field(
        default_factory=list,
        description='Names of pollsters, listeners or meters to switch off, with * and ?: ["disk.*"].',
    )


class StatusSection(Section):
    """Health, readiness and metrics, in every daemon."""

    listen: str = Field(
        default="tcp:8779:interface=127.0.0.1",
        description='Serves /healthz, /readyz and /metrics; "" for nowhere. Daemons that share a host share this file: see by_daemon.',
    )
    by_daemon: dict[str, str] = Field(
        default_factory=dict, description='Where one daemon differs: { meter-api = "tcp:8780:interface=127.0.0.1" }.'
    )


class ManholeSection(Section):
    """A Python shell inside the running daemon over SSH. Whoever has a key can do all that the daemon can."""

    listen: str = Field(
        default="",
        description='Off when empty. "tcp:8778:interface=127.0.0.1" or "unix:/run/meter/manhole.sock:mode=600"; nothing but loopback or a UNIX socket.',
    )
    by_daemon: dict[str, str] = Field(default_factory=dict, description="Where one daemon differs.")
    host_key_file: str = Field(
        default="/etc/meter/manhole_host_key",
        description="Made with: ssh-keygen -t ed25519 -N '' -f /etc/meter/manhole_host_key",
    )
    authorized_keys_file: str = Field(
        default="/etc/meter/manhole_authorized_keys", description="Public keys of those who may enter, one a line."
    )
