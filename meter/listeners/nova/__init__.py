"""Listeners to Nova, the compute service."""

from meter.declarative.notifications import built_in
from meter.listeners.nova.flavor_gpus import FlavorGpuListener

__all__ = [
    "booting_listener",
    "delete_samples_listener",
    "flavor_gpus_listener",
    "flavor_listener",
    "instance_listener",
    "node_listener",
    "scheduler_listener",
]

instance_listener = built_in(__file__, "instance")
flavor_listener = built_in(__file__, "flavor")
flavor_gpus_listener = FlavorGpuListener(built_in(__file__, "flavor_gpus"))
booting_listener = built_in(__file__, "booting")
node_listener = built_in(__file__, "node")
scheduler_listener = built_in(__file__, "scheduler")
delete_samples_listener = built_in(__file__, "delete_samples")
