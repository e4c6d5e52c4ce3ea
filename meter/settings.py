"""The settings: every section of the configuration as a typed model.

A field's default and description are what ``etc/meter.toml`` shows; a test keeps the two equal.
"""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import Field
from pydantic import SecretStr

from meter.interfaces import Topic
from meter.section import Count
from meter.section import Seconds
from meter.section import Section
from meter.settings_central import CentralSection
from meter.settings_central import OpenStackSection
from meter.settings_owners import OwnerSection
from meter.settings_store import StoreSection

Priority = Literal["audit", "debug", "info", "warn", "error", "critical", "sample"]
PRIORITIES: tuple[Priority, ...] = ("info", "audit", "sample", "error")
SERVICE_EXCHANGES = (
    "openstack",
    "nova",
    "glance",
    "cinder",
    "neutron",
    "keystone",
    "swift",
    "heat",
    "trove",
    "magnum",
    "designate",
    "central",
    "manila",
    "ironic",
    "sahara",
)
"""Where services publish today. Cinder and others that name no exchange use ``openstack``, Designate also ``central``."""


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


class PollingSection(Section):
    """When the agents poll."""

    interval_seconds: Seconds = Field(
        default=300.0,
        description="From one polling cycle to the next. The first is at the start, the others at its multiples by the clock.",
    )
    intervals: dict[str, Seconds] = Field(
        default_factory=dict,
        description='Pollsters that have another one, by name, with * and ?; the first that matches counts: { cpu = 60.0, "disk*" = 3600.0 }.',
    )
    jitter_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="All cycles are late by a random part of so many seconds, chosen at the start, to spread the load of many agents.",
    )
    timeout_seconds: Seconds = Field(
        default=60.0, description="A pollster that takes longer is given up for this cycle."
    )
    batch_samples: Count = Field(default=100, description="Samples in one message, at most.")

    def interval_of(self, pollster: str) -> float:
        """Return the interval of a pollster in seconds: the first whose pattern matches, else the one of all."""
        matching = (seconds for pattern, seconds in self.intervals.items() if fnmatchcase(pollster, pattern))
        return next(matching, self.interval_seconds)


class SpoolSection(Section):
    """The agents' outbox on disk, for samples that the bus has not confirmed."""

    largest_bytes: Count = Field(
        default=1024 * 1024 * 1024, description="When it is full the oldest samples go, counted and logged."
    )
    longest_age_seconds: Seconds = Field(
        default=14 * 86400.0, description="Samples that waited longer go, counted and logged."
    )


class PluginsSection(Section):
    """Which of the installed plugins work."""

    disable: list[str] = Field(
        default_factory=list,
        description='Names of pollsters, listeners or meters to switch off, with * and ?: ["disk.*"].',
    )


class ComputeSection(Section):
    """The compute agent."""

    libvirt_uri: str = Field(
        default="auto",
        min_length=1,
        description='libvirt\'s connection URI: "qemu:///system"; "auto" is that where libvirt is installed, else libvirt\'s own "test:///default".',
    )
    timeout_seconds: Seconds = Field(
        default=10.0,
        description="A call of libvirt that takes longer is abandoned, and asked again past the domain that hangs.",
    )
    host: str = Field(
        default="", description="What this host is called in the metadata of samples; its own name by default."
    )
    default_project_id: str = Field(
        default="", description="Whose the domains are that neither Nova nor a rule knows; nobody's by default."
    )
    default_user_id: str = Field(default="", description="Likewise.")
    owners: list[OwnerSection] = Field(
        default_factory=list,
        description="[[compute.owners]]: rules for domains that Nova does not know, the first that matches counts. name or element, project_id, user_id; see docs/compute.rst.",
    )


class CollectorSection(Section):
    """The collector."""

    batch_samples: Count = Field(default=1000, description="Samples written in one transaction, at most.")
    batch_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.05, description="How long samples wait for others to be written with."
    )
    exchange_retry_seconds: Seconds = Field(
        default=10.0, description="How often an exchange that does not exist is looked for again."
    )
    create_exchanges: bool = Field(
        default=True,
        description="Make a service's exchange (topic, not durable, as the services do) where it does not exist yet.",
    )
    ceilometer_exchange: str = Field(
        default="ceilometer",
        description='Also take samples that Ceilometer\'s agents publish on this exchange; "" for none.',
    )


class NotificationsSection(Section):
    """The notifications that the collector hears, and the meters that are made of them."""

    exchanges: list[str] = Field(
        default_factory=lambda: list(SERVICE_EXCHANGES),
        description="Exchanges of the services. Those of installed listeners are heard too.",
    )
    topics: list[str] = Field(
        default_factory=lambda: ["notifications", "versioned_notifications"],
        description="Topics of the services; the second is Nova's other form of the same facts, which are counted once.",
    )
    priorities: list[Priority] = Field(
        default_factory=lambda: list(PRIORITIES),
        description="Priorities that are heard of each topic.",
    )
    prefetch: Count = Field(
        default=1000,
        description="Notifications delivered and not yet acknowledged, at most; this queue's own prefetch.",
    )
    batch_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.05, description="How long samples wait for those of other notifications to be published with."
    )
    definitions: str = Field(
        default="/etc/meter/meters.d",
        description='Your own meters: a directory of *.toml, or of Ceilometer\'s meters.yaml; "" for none.',
    )

    @property
    def heard(self) -> tuple[Topic, ...]:
        """What the collector subscribes to, whatever its listeners want."""
        return tuple(
            Topic(exchange, f"{topic}.{priority}")
            for exchange in self.exchanges
            for topic in self.topics
            for priority in self.priorities
        )


class ApiTokenSection(Section):
    """One static token of the API."""

    sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="The token's SHA-256 in hexadecimal: printf %s TOKEN | sha256sum"
    )
    admin: bool = Field(default=False, description="Sees the samples of all projects.")
    project_id: str | None = Field(default=None, description="Whose samples it sees, unless it is an admin's.")
    user_id: str | None = Field(default=None, description="Who asks, for the log.")


class ApiKeystoneSection(Section):
    """How the API asks Keystone about the tokens of whoever asks it."""

    auth_url: str = Field(default="", description="Keystone: https://keystone.example.org/v3")
    username: str = Field(default="meter", description="The API's own account, which may validate tokens.")
    password: SecretStr | None = Field(default=None, description="Its password.")
    password_file: str = Field(default="", description="A file that holds it.")
    user_domain_name: str = Field(default="Default", description="The domain of the account.")
    project_name: str = Field(default="service", description="The project in which it has a role.")
    project_domain_name: str = Field(default="Default", description="The domain of that project.")
    ca_file: str = Field(default="", description="Authorities that sign Keystone's certificate, PEM.")
    insecure: bool = Field(
        default=False, description="Take any certificate: whoever is in between can read the password and the tokens."
    )
    admin_roles: list[str] = Field(
        default_factory=lambda: ["admin"],
        description="Whoever has one of these roles sees the samples of all projects.",
    )
    revalidate_seconds: Seconds = Field(
        default=60.0, description="A token is asked about again after so long: a revoked one is let in no longer."
    )
    cached_tokens: Count = Field(default=10_000, description="Tokens that are remembered meanwhile, at most.")


class ApiAuthSection(Section):
    """Who may ask the API."""

    mode: Literal["none", "tokens", "keystone"] = Field(
        default="none",
        description="none: whoever reaches it sees all, so it listens on loopback only. tokens: those listed in tokens, sent as X-Auth-Token. keystone: those that Keystone knows.",
    )
    tokens: list[ApiTokenSection] = Field(
        default_factory=list, description="[[api.auth.tokens]]: sha256, and admin or project_id."
    )
    keystone: ApiKeystoneSection = ApiKeystoneSection()


class ApiSection(Section):
    """The HTTP API."""

    listen: str = Field(
        default="tcp:8777:interface=127.0.0.1", description="Where it listens: a Twisted endpoint description."
    )
    base_url: str = Field(
        default="",
        description="How clients reach it, for the links in answers: https://metering.example.org; by default as the request says.",
    )
    default_limit: Count = Field(default=100, description="Entries in an answer when the question names no limit.")
    largest_limit: Count = Field(default=10000, description="The largest limit a question may name.")
    largest_statistics: Count = Field(
        default=200_000, description="Windows, of all groups together, in one answer of statistics; more are refused."
    )
    largest_body_bytes: Count = Field(default=1024 * 1024, description="Larger requests are refused.")
    most_requests: Count = Field(
        default=100, description="Requests that are answered at the same time; more are told to try again."
    )
    most_live: Count = Field(default=50, description="Clients that follow /v2/live at the same time.")
    accept_samples: bool = Field(
        default=True,
        description="Take samples that clients POST, sign them and send them over the bus. Without it meter-api needs no bus.",
    )
    cors_origins: list[str] = Field(
        default_factory=list,
        description='Pages that may ask from within a browser: ["https://dashboard.example.org"], or ["*"] for any.',
    )
    access_log: bool = Field(default=False, description="Log each request, who asked and what came of it.")
    auth: ApiAuthSection = ApiAuthSection()


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


class Config(Section):
    """The whole configuration. ``pollsters`` and ``listeners`` hold the sections that plugins declare themselves."""

    meter: MeterSection = MeterSection()
    bus: BusSection = BusSection()
    store: StoreSection = StoreSection()
    signing: SigningSection = SigningSection()
    polling: PollingSection = PollingSection()
    spool: SpoolSection = SpoolSection()
    plugins: PluginsSection = PluginsSection()
    compute: ComputeSection = ComputeSection()
    central: CentralSection = CentralSection()
    openstack: OpenStackSection = OpenStackSection()
    collector: CollectorSection = CollectorSection()
    notifications: NotificationsSection = NotificationsSection()
    api: ApiSection = ApiSection()
    status: StatusSection = StatusSection()
    manhole: ManholeSection = ManholeSection()
    pollsters: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="[pollsters.NAME]: options of one pollster."
    )
    listeners: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="[listeners.NAME]: options of one listener."
    )

    @property
    def signing_key_file(self) -> Path:
        """The file that holds the signing key when the configuration names none."""
        return Path(self.meter.state_dir) / "signing.key"
