"""Resolving the libvirt URI ``auto``."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress

SYSTEM_URI = "qemu:///system"
TEST_URI = "test:///default"
SOCKETS = (
    "/var/run/libvirt/virtqemud-sock-ro",
    "/var/run/libvirt/virtqemud-sock",
    "/var/run/libvirt/libvirt-sock-ro",
    "/var/run/libvirt/libvirt-sock",
)
DAEMONS = ("virtqemud", "libvirtd")


def resolve_uri(
    setting: str,
    *,
    installed_is_enough: bool = False,
    sockets: Sequence[str] = SOCKETS,
    search_path: str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
) -> tuple[str, str]:
    """Return the connection URI for ``setting``, and the reason for the choice.

    ``"auto"`` is this host's QEMU where a libvirt daemon answers (or, with ``installed_is_enough``, is installed), and
    libvirt's built-in test driver otherwise. Any other setting is returned unchanged. Call it before the reactor runs:
    it connects to the sockets of the daemon, and a socket activated by systemd may take a second.
    """
    if setting != "auto":
        return setting, "set in the configuration"
    for path in sockets:
        if _accepts(path):
            return SYSTEM_URI, f"a libvirt daemon answers at {path}"
    if installed_is_enough:
        for daemon in DAEMONS:
            if found := shutil.which(daemon, path=search_path):
                return SYSTEM_URI, f"{found} is installed"
    return TEST_URI, "no libvirt daemon answers on this host"


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(2.0)
        probe.connect(path)
        return True
    return False
