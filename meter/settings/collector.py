"""Settings of the collector: writing of samples, and consuming of notifications."""

from __future__ import annotations

from typing import Annotated
from typing import Literal

from pydantic import Field

from meter.interfaces import Topic
from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section

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
"""Exchanges that services publish notifications to by default. Services without one of their own use ``openstack``, as Cinder
does; Designate also uses ``central``."""


METERING_KINDS = (
    "compute.*",
    "instance.*",
    "volume.*",
    "snapshot.*",
    "backup.*",
    "group.*",
    "share*",
    "image.*",
    "floatingip.*",
    "network.*",
    "subnet.*",
    "port.*",
    "router.*",
    "l3.meter*",
    "loadbalancer.*",
    "octavia.*",
    "orchestration.stack.*",
    "trove.*",
    "dns.*",
    "magnum.*",
    "sahara.*",
    "baremetal.*",
    "objectstore.*",
)
"""Event types that concern resources of tenants; others concern the services themselves."""


class CollectorSection(Section):
    """The collector."""

    batch_samples: Count = Field(default=1000, description="Maximum number of samples written in one transaction.")
    batch_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.05, description="How long samples wait for others to be written in the same transaction."
    )
    exchange_retry_seconds: Seconds = Field(
        default=10.0, description="How often the collector tries again to bind to an exchange that does not exist."
    )
    create_exchanges: bool = Field(
        default=True,
        description="Declare the exchange of a service (topic, not durable, as the services do) if it does not exist.",
    )
    ceilometer_exchange: str = Field(
        default="ceilometer",
        description='Exchange on which Ceilometer\'s agents publish samples, which are stored too; "" for none.',
    )


class NotificationsSection(Section):
    """The notifications that the collector consumes, and the meters made from them."""

    exchanges: list[str] = Field(
        default_factory=lambda: list(SERVICE_EXCHANGES),
        description="Exchanges of the services. Exchanges of installed listeners are added.",
    )
    topics: list[str] = Field(
        default_factory=lambda: ["notifications", "versioned_notifications"],
        description="Notification topics of the services. Nova publishes its versioned notifications on the second; an event that arrives in both formats is counted once.",
    )
    priorities: list[Priority] = Field(
        default_factory=lambda: list(PRIORITIES),
        description="Notification priorities consumed from each topic.",
    )
    prefetch: Count = Field(
        default=1000,
        description="Maximum number of notifications delivered and not yet acknowledged.",
    )
    batch_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.2,
        description="How long samples wait for those of other notifications to be published in the same message.",
    )
    definitions: str = Field(
        default="/etc/meter/meters.d",
        description='Directory of user-defined meters: *.toml, or Ceilometer\'s meters.yaml; "" for none.',
    )

    ignored_users: list[str] = Field(
        default_factory=list,
        description="Ids of users whose requests to Swift and other services are not metered, such as Meter's own user, which requests the account of every tenant.",
    )
    archive_messages: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Maximum number of archived notifications, which meter-notify replay can publish again; only those that no listener accepts are archived. 0 archives none.",
    )
    archive_days: Annotated[float, Field(gt=0, le=365)] = Field(
        default=7.0, description="Days after which an archived notification is dropped."
    )
    archive_event_types: list[str] = Field(
        default_factory=lambda: list(METERING_KINDS),
        description="Event types of the notifications that are archived, with * and ?.",
    )

    @property
    def service_topics(self) -> tuple[Topic, ...]:
        """Topics that the collector subscribes to, besides those of its listeners."""
        return tuple(
            Topic(exchange, f"{topic}.{priority}")
            for exchange in self.exchanges
            for topic in self.topics
            for priority in self.priorities
        )


class IdentitiesSection(Section):
    """Names of projects, domains and users that Keystone does not know."""

    file: str = Field(
        default="",
        description="File with names, such as /etc/meter/identities.toml: tables [[identity]] with id, name, kind, domain and since. Collectors read it when it has changed (see docs/identity-names.rst).",
    )
