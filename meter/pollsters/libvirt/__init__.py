"""Meters of the domains of this host's libvirt; ``README.rst`` lists them, ``table.py`` says how they are made.

Each pollster has a variable of its own: ``twisted.plugin`` notes the names it finds here, and notes them anew only when
this file changes.
"""

from meter.pollsters.libvirt.pollster import GuestPollster

instance = GuestPollster("instance")
cpu = GuestPollster("cpu")
vcpus = GuestPollster("vcpus")
memory = GuestPollster("memory")
perf = GuestPollster("perf")
disk = GuestPollster("disk")
disk_device = GuestPollster("disk.device")
network = GuestPollster("network.interface")
