"""Settings of every daemon: state directory, bus, signing keys, plugins, status pages and manhole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import Field
from pydantic import SecretStr

from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section
from meter.settings.tls import ServerTlsSection
from meter.signing_keys import SignatureScheme
from meter.units import older_name


class MeterSection(Section):
    """Settings of all daemons."""

    state_dir: str = Field(
        default="/var/lib/meter",
        description="Directory of persistent state: spool, embedded database, generated signing key.",
    )
    source: str = Field(default="openstack", min_length=1, description="Source of samples that do not name one.")
    log_levels: str = Field(
        default="",
        description='Lowest level of Meter\'s log formats, and levels of single packages after it: "info meter.bus.amqp=debug". By default the environment variable METER_LOG_LEVELS, or info.',
    )


class BusSection(Section):
    """The message bus."""

    url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        description='URL of RabbitMQ, amqp:// or amqps://. The nodes of a cluster are separated by commas: "amqp://user:password@rabbit1,rabbit2,rabbit3/vhost". "local:" is the in-process bus, the default of twistd meter.',
    )
    url_file: str = Field(default="", description="File that contains the URL, instead of url.")
    queue_type: Literal["auto", "classic", "quorum"] = Field(
        default="auto",
        description='Type of the durable queues that Meter declares; existing queues keep their type. "auto" is "quorum" if url names several hosts, else "classic".',
    )
    heartbeat_seconds: Count = Field(
        default=20,
        description="Heartbeat interval. A connection that is silent for three intervals is closed and opened again.",
    )
    window: Count = Field(
        default=100, description="Maximum number of published messages that the broker has not confirmed."
    )
    confirm_timeout_seconds: Seconds = Field(
        default=30.0,
        description="How long the broker may take to confirm a message before the connection is opened again.",
    )
    prefetch: Count = Field(
        default=200, description="Maximum number of messages per queue that are delivered and not yet acknowledged."
    )
    max_prefetched_bytes: Count = Field(
        default=64 * 1024 * 1024,
        description="Maximum total size, per queue, of the bodies of messages that are delivered and not yet acknowledged; a larger body is received alone. While large messages wait, fewer than prefetch are delivered.",
    )
    max_body_bytes: Count = Field(
        default=16 * 1024 * 1024,
        description="Maximum size of a message. Larger messages are not published, and are dead-lettered when they arrive.",
    )
    max_dead_letters: Count = Field(
        default=100_000,
        description="Maximum number of dead letters in metering.dead. While it is full, further bad messages wait in another queue, which has no limit.",
    )


def _meter_scheme() -> list[SignatureScheme]:
    return ["meter"]


class SigningKeySection(Section):
    """One of several signing keys."""

    id: str = Field(min_length=1, max_length=64, description="Id of the key in messages and in the store.")
    key: SecretStr | None = Field(default=None, description="The shared secret.")
    key_file: str = Field(default="", description="File that contains the shared secret, instead of key.")
    schemes: list[SignatureScheme] = Field(
        default_factory=_meter_scheme,
        min_length=1,
        description='Signatures that are accepted from this key: "meter", the signature of a batch by Meter\'s daemons; "ceilometer", that of a message by Ceilometer\'s agents, which proves less.',
    )
    meters: list[str] = Field(
        default_factory=list,
        description='Meters whose samples the key may sign, with * and ?: ["disk.*"]. By default all.',
    )
    sources: list[str] = Field(
        default_factory=list, description="Sources whose samples the key may sign, with * and ?. By default all."
    )
    agents: list[str] = Field(
        default_factory=list,
        description='Agents and other daemons for which the key may report, as DAEMON@HOST with * and ?: ["meter-compute@*"]. By default all.',
    )
    not_before: datetime | None = Field(
        default=None, description="The key does not sign samples with a timestamp before this time."
    )
    not_after: datetime | None = Field(
        default=None, description="The key does not sign samples with a timestamp at or after this time."
    )


class SigningSection(Section):
    """The secrets that sign and verify metering messages."""

    key: SecretStr | None = Field(
        default=None,
        description="Shared secret of all agents and collectors. If no key is configured, state_dir/signing.key is used, which is generated at the first start.",
    )
    key_file: str = Field(default="", description="File that contains the shared secret, instead of key.")
    schemes: list[SignatureScheme] = Field(
        default_factory=_meter_scheme,
        min_length=1,
        description='Signatures that are accepted from the key: "meter", the signature of a batch by Meter\'s daemons; "ceilometer", that of a message by Ceilometer\'s agents, which proves less. Keys that are listed have their own schemes.',
    )
    ceilometer_signature: bool = Field(
        default=True,
        description="Add Ceilometer's message_signature to the messages that Meter publishes, so that other consumers of the bus can verify them. Meter itself verifies its own signature of the batch.",
    )
    keys: list[SigningKeySection] = Field(
        default_factory=list,
        description="[[signing.keys]]: several keys, for rotation. All are accepted; the first that may sign a sample, by its timestamp, meter and source, signs it.",
    )
    accept_unsigned: bool = Field(default=False, description="Store messages without a signature.")


class UnitsSection(Section):
    """Names of units in the samples that Meter makes."""

    binary: bool = Field(
        default=True,
        description="true: powers of 1024 are named KiB, MiB, GiB, as in Ceilometer 26 and newer; false: KB, MB, GB, as in older versions. Volumes are the same.",
    )

    @property
    def name_of(self) -> Callable[[str], str] | None:
        """The function from a unit to the name to use for it; ``None`` if units keep their names."""
        return None if self.binary else older_name


class PluginsSection(Section):
    """Which of the installed plugins are active."""

    disable: list[str] = Field(
        default_factory=list,
        description='Names of pollsters, listeners or meters to disable, with * and ?: ["disk.*"].',
    )


class StatusSection(Section):
    """Health, readiness and metrics of every daemon."""

    listen: str = Field(
        default="tcp:8779:interface=127.0.0.1",
        description='Twisted endpoint description of the address that serves /healthz, /readyz and /metrics; "" for none. Daemons on one host need different addresses, see by_daemon.',
    )
    by_daemon: dict[str, str] = Field(
        default_factory=dict,
        description='Addresses of single daemons, instead of listen: { meter-api = "tcp:8780:interface=127.0.0.1" }.',
    )
    tls: ServerTlsSection = ServerTlsSection()


class ManholeSection(Section):
    """A Python shell in the running daemon over SSH. Anyone with a key can do everything that the daemon can."""

    listen: str = Field(
        default="",
        description='Disabled if empty. "tcp:8778:interface=127.0.0.1" or "unix:/run/meter/manhole.sock:mode=600"; only loopback addresses and UNIX sockets are allowed.',
    )
    by_daemon: dict[str, str] = Field(
        default_factory=dict, description="Addresses of single daemons, instead of listen."
    )
    host_key_file: str = Field(
        default="/etc/meter/manhole_host_key",
        description="SSH host key. Generate it with: ssh-keygen -t ed25519 -N '' -f /etc/meter/manhole_host_key",
    )
    authorized_keys_file: str = Field(
        default="/etc/meter/manhole_authorized_keys", description="Public keys that may log in, one per line."
    )
