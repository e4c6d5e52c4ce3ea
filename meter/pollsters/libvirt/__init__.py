"""Meters of the domains of this host's libvirt; ``README.rst`` lists them, ``table.py`` says how they are made.

Each has a variable of its own: ``twisted.plugin`` notes the names it finds here, and notes them anew only when this
file changes.
"""

from meter.pollsters.libvirt import table
from meter.pollsters.libvirt.pollster import GuestPollster

instance = GuestPollster(table.INSTANCE)
cpu = GuestPollster(table.CPU)
vcpus = GuestPollster(table.VCPUS)
memory = GuestPollster(table.MEMORY)
