"""Meter: complete, exact and verifiable usage metering for libvirt hosts and OpenStack regions."""

__version__ = "0.1.0"
