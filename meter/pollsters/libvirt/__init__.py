"""Meters of the domains of this host's libvirt: ``README.rst`` lists them, ``table.py`` defines them.

Each pollster has a variable of its own: ``twisted.plugin`` caches the names in this file and reads them again only when
the file changes.
"""

from meter.flavor_gpus import FlavorGpuOptions
from meter.pollsters.libvirt.pollster import FlavorGpuPollster
from meter.pollsters.libvirt.pollster import GuestPollster

instance = GuestPollster("instance")
cpu = GuestPollster("cpu")
vcpus = GuestPollster("vcpus")
memory = GuestPollster("memory")
perf = GuestPollster("perf")
disk = GuestPollster("disk")
disk_device = GuestPollster("disk.device")
network = GuestPollster("network.interface")
gpu = GuestPollster("gpu")
flavor_gpus = FlavorGpuPollster("flavor.gpus", FlavorGpuOptions())
