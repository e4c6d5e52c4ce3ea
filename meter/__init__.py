"""Meter: complete, exact and provable usage metering for libvirt hosts and OpenStack regions."""

__version__ = "0.1.0"
