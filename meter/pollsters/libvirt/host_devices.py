"""Devices of the host that a domain has for itself: which of them are graphics processors (GPUs), or parts of one (vGPUs).

A guest's use of such a device cannot be seen from the host: what is metered is that the domain has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

GPU_CLASSES = ("0x03", "0x12")
"""How the PCI classes of display controllers and of processing accelerators begin."""

_PARTS = ("domain", "bus", "slot", "function")

_UUID = re.compile(r"[0-9a-fA-F-]{36}")

SYSFS = Path("/sys")


class UnknownDevice(Exception):
    """What a device is cannot be read; the text names it."""


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A device in the XML of a domain: its PCI address (``0000:41:00.0``), or the UUID of a mediated one.

    ``name`` is libvirt's alias, which a device keeps while others are detached, or made of its number in the XML: ``hostdev0``.
    """

    name: str
    kind: Literal["pci", "mdev"]
    address: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of a domain, or a part of one if it is ``virtual``. ``type`` is the type of a mediated device, ``""`` for others."""

    name: str
    virtual: bool
    vendor_id: str
    product_id: str
    type: str = ""


def host_devices(root: Element) -> tuple[HostDevice, ...]:
    """Return the PCI devices and mediated devices of a domain; ``root`` is its XML."""
    found = []
    for number, element in enumerate(root.findall("devices/hostdev")):
        address = element.find("source/address")
        if address is None or element.get("mode") != "subsystem":
            continue
        alias = element.find("alias")
        name = (alias is not None and alias.get("name")) or f"hostdev{number}"
        if element.get("type") == "pci":
            try:
                domain, bus, slot, function = (int(address.get(name, "0"), 16) for name in _PARTS)
            except ValueError:
                continue
            found.append(HostDevice(name, "pci", f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"))
        elif element.get("type") == "mdev" and _UUID.fullmatch(address.get("uuid", "")):
            found.append(HostDevice(name, "mdev", address.get("uuid", "").lower()))
    return tuple(found)


class DeviceReader:
    """Reads from ``sysfs`` what devices are, once for each as long as a domain has it."""

    def __init__(self, sysfs: Path = SYSFS) -> None:
        self._sysfs = sysfs
        self._known: dict[HostDevice, Gpu | None] = {}

    def gpus(self, devices: Sequence[HostDevice]) -> list[Gpu]:
        """Return those of ``devices`` that are GPUs; raise :class:`UnknownDevice`."""
        return [gpu for each in devices if (gpu := self._gpu(each)) is not None]

    def forget_all_but(self, devices: set[HostDevice]) -> None:
        """Forget all other devices."""
        for each in self._known.keys() - devices:
            del self._known[each]

    def _gpu(self, device: HostDevice) -> Gpu | None:
        if device not in self._known:
            try:
                self._known[device] = self._read_pci(device) if device.kind == "pci" else self._read_mediated(device)
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise UnknownDevice(
                    f"the host's {device.kind} device {device.address} cannot be read: {reason}"
                ) from None
        return self._known[device]

    def _read_pci(self, device: HostDevice) -> Gpu | None:
        path = self._sysfs / "bus/pci/devices" / device.address
        return _pci_gpu(path, device.name, virtual=(path / "physfn").exists())

    def _read_mediated(self, device: HostDevice) -> Gpu | None:
        path = (self._sysfs / "bus/mdev/devices" / device.address).resolve(strict=True)
        return _pci_gpu(path.parent, device.name, virtual=True, type=(path / "mdev_type").resolve(strict=True).name)


def _pci_gpu(path: Path, name: str, *, virtual: bool, type: str = "") -> Gpu | None:
    if not _text(path / "class").startswith(GPU_CLASSES):
        return None
    vendor, product = (_text(path / each).removeprefix("0x") for each in ("vendor", "device"))
    return Gpu(name, virtual, vendor, product, type)


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
