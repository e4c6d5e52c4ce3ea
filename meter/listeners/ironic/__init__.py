"""Listeners to Ironic, the bare metal service."""

from meter.listeners.ironic.sensors import SensorListener

__all__ = ["sensor_listener"]

sensor_listener = SensorListener()
