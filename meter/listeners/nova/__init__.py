"""Listeners to Nova, the compute service."""

from meter.listeners.nova.instances import InstanceListener

__all__ = ["instance_listener"]

instance_listener = InstanceListener()
