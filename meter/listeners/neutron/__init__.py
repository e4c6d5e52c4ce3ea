"""Listeners to Neutron, the network service."""

from meter.declarative.notifications import built_in
from meter.listeners.neutron.bandwidth import BandwidthListener

__all__ = [
    "bandwidth_listener",
    "floatingip_listener",
    "network_listener",
    "port_listener",
    "router_listener",
    "services_listener",
    "subnet_listener",
]

network_listener = built_in(__file__, "network")
subnet_listener = built_in(__file__, "subnet")
port_listener = built_in(__file__, "port")
router_listener = built_in(__file__, "router")
floatingip_listener = built_in(__file__, "floatingip")
bandwidth_listener = BandwidthListener(built_in(__file__, "bandwidth"))
services_listener = built_in(__file__, "services")
