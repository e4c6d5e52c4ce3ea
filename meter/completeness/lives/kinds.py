"""Kinds of resources that have lives, as data: which meters and pollsters tell that one exists, its state and its size.

A further kind needs a row in :data:`KINDS` and in the table of ``docs/lives.rst``.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from types import MappingProxyType

INSTANCE = "instance"

RUNNING = frozenset({"active", "paused", "rescued", "resized"})
"""Nova's states (``vm_state``) in which an instance occupies processors and memory of its host."""

OFF = frozenset({"stopped", "suspended", "shelved", "shelved_offloaded", "soft-delete"})
"""Nova's states in which an instance occupies neither: nobody need measure them."""

STATES_SHOWN_BY_HOST: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "active": frozenset({"active"}),
        "paused": frozenset({"paused"}),
        "suspended": frozenset({"suspended", "stopped"}),
        "stopped": frozenset({"stopped", "suspended"}),
        "rescued": frozenset({"active", "paused"}),
        "resized": frozenset({"active", "paused", "stopped"}),
        "soft-delete": frozenset({"stopped", "suspended"}),
    }
)
"""States of Nova in which an instance is a domain of a host, each with the states that libvirt may show for it. In another
state, such as ``building``, ``error`` or ``shelved_offloaded``, what a host shows or does not list says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKind:
    """A kind of resource.

    A sample of one of the ``counting`` meters has the volume 1 while the resource exists, and 0 from its end on. The volume of
    a ``sizing`` meter is the size. ``polled`` names the pollsters whose cycle reports list every resource of the kind.
    ``state`` and ``name`` are keys of the samples' metadata, of which the first that has a text is used; ``flavor`` is one
    with dots. A resource in one of ``ended_states`` does not exist. Unless ``deletion_is_final``, a resource whose deletion is
    notified exists all the same if its service lists it afterwards. Samples of notifications tell something if their event type
    begins with ``event_prefix``.

    ``inventory``: the polls read the list of the service that owns the resources, so that what they do not list does not
    exist. Otherwise they read hosts, which may not list a resource that exists, and :data:`STATES_SHOWN_BY_HOST` applies.
    """

    name: str
    counting: tuple[str, ...] = ()
    sizing: tuple[str, ...] = ()
    stating: tuple[str, ...] = ()
    polled: tuple[str, ...] = ()
    unit: str | None = None
    state: tuple[str, ...] = ("status",)
    named: tuple[str, ...] = ("name", "display_name")
    flavor: str | None = None
    ended_states: frozenset[str] = field(default=frozenset({"deleted"}))
    deletion_is_final: bool = True
    inventory: bool = True
    event_prefix: str = ""

    @property
    def meters(self) -> tuple[str, ...]:
        """All meters whose samples tell about a resource of the kind."""
        return (*self.counting, *self.sizing, *self.stating)


KINDS: Mapping[str, ResourceKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            ResourceKind(
                name=INSTANCE,
                counting=("instance",),
                stating=("power.state",),
                polled=("instance",),
                state=("state",),
                named=("display_name", "name"),
                flavor="flavor.name",
                inventory=False,
                event_prefix="compute.instance.",
            ),
            ResourceKind(name="volume", counting=("volume",), sizing=("volume.size",), polled=("volume",), unit="GiB"),
            ResourceKind(
                name="snapshot",
                counting=("snapshot",),
                sizing=("snapshot.size", "volume.snapshot.size"),
                polled=("volume.snapshot",),
                unit="GiB",
            ),
            ResourceKind(
                name="backup", sizing=("backup.size", "volume.backup.size"), polled=("volume.backup",), unit="GiB"
            ),
            ResourceKind(
                name="share",
                sizing=("manila.share.size",),
                stating=("manila.share.status",),
                polled=("manila.share",),
                unit="GiB",
                ended_states=frozenset({"deleted", "deferred_deleting", "error_deferred_deleting"}),
                deletion_is_final=False,  # Manila notifies so of the old copy of a share that it has moved, too
            ),
            ResourceKind(
                name="image",
                counting=("image",),
                sizing=("image.size",),
                polled=("image",),
                unit="B",
                ended_states=frozenset({"deleted", "pending_delete"}),
            ),
            ResourceKind(
                name="floating_ip",
                counting=("ip.floating",),
                polled=("ip.floating",),
                named=("floating_ip_address", "name"),
            ),
            ResourceKind(
                name="loadbalancer",
                stating=("loadbalancer.operating", "loadbalancer.provisioning"),
                polled=("loadbalancer",),
                state=("provisioning_status",),
                ended_states=frozenset({"DELETED"}),
            ),
            ResourceKind(name="lb_pool", counting=("network.services.lb.pool",)),
            ResourceKind(name="lb_vip", counting=("network.services.lb.vip",)),
        )
    }
)
"""All kinds, by name. ``lb_pool`` and ``lb_vip`` are those of Neutron's former load balancers."""

_KIND_OF_METER: Mapping[str, ResourceKind] = MappingProxyType(
    {meter: kind for kind in KINDS.values() for meter in kind.meters}
)


def kind_of_meter(meter: str) -> ResourceKind | None:
    """Return the kind about whose resources ``meter`` tells, ``None`` if it tells of none."""
    return _KIND_OF_METER.get(meter)


def meters_of(kinds: Iterable[ResourceKind]) -> tuple[str, ...]:
    """Return the meters that tell about resources of ``kinds``."""
    return tuple(_distinct(meter for kind in kinds for meter in kind.meters))


def _distinct(names: Iterable[str]) -> Iterator[str]:
    return iter(dict.fromkeys(names))
