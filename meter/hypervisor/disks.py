"""Sizes of disk images that libvirt's bulk call does not give, asked for once per disk.

While a domain runs, the bulk call gives as the allocation of a disk the highest offset that its guest has written to
since the domain started. Until the first write that is 0, and then ``virDomainGetBlockInfo`` (``virsh domblkinfo``, which
Ceilometer reads) gives other values: the space that the image occupies as the allocation, and the length of the image
as its physical size. From the first write on, and while the domain is off, both give the same (libvirt 9.0;
tests/integration/test_compute_libvirtd.py).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from typing import Any

from meter.hypervisor.library import load_libvirt

ASKING_SECONDS = 0.25
"""The longest time that one reading spends on asking for sizes of disks. The next reading asks for the rest."""

MOST_DISKS = 4096
"""Of one domain, as in the pollsters."""

Sizes = tuple[int, int] | None
"""Allocation and physical size in bytes; ``None`` where libvirt did not tell."""


class DiskSizes:
    """Corrects the statistics of the disks in one reading.

    ``known`` has the answers that earlier readings got; ``found`` those that still hold. An answer holds for one run of
    one domain, and for as long as the bulk call gives the same sizes.
    """

    def __init__(self, known: Mapping[Hashable, Sizes], now: Callable[[], float]) -> None:
        self.found: dict[Hashable, Sizes] = {}
        self._known = known
        self._now = now
        self._end = now() + ASKING_SECONDS

    def corrected(self, domain: Any, stats: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``stats`` with the allocation and physical size of each disk as ``virDomainGetBlockInfo`` gives them.

        A disk whose sizes could not be asked for in time is returned without them. Where libvirt refuses to answer, the
        sizes stay as they are.
        """
        count = stats.get("block.count")
        if not isinstance(count, int) or count < 1 or (number := domain.ID()) < 0:
            return stats
        corrected: dict[str, Any] | None = None
        for index in range(min(count, MOST_DISKS)):
            prefix = f"block.{index}."
            name = stats.get(f"{prefix}name")
            if stats.get(f"{prefix}allocation") != 0 or not name:
                continue
            parts = (stats.get(prefix + each) for each in ("backingIndex", "capacity", "physical"))
            key = (domain.UUIDString(), number, name, *parts)
            if key not in self.found and not self._find(key, domain, name):
                corrected = dict(corrected or stats)
                del corrected[f"{prefix}allocation"]
                corrected.pop(f"{prefix}physical", None)
            elif (sizes := self.found[key]) is not None:
                corrected = dict(corrected or stats)
                corrected[f"{prefix}allocation"], corrected[f"{prefix}physical"] = sizes
        return stats if corrected is None else corrected

    def _find(self, key: Hashable, domain: Any, name: str) -> bool:
        """Remember what is known, or what libvirt says now; return whether there was time to ask."""
        if key in self._known:
            self.found[key] = self._known[key]
        elif self._now() >= self._end:
            return False
        else:
            libvirt = load_libvirt()
            try:
                _, allocation, physical = domain.blockInfo(name)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN or not domain.connect().isAlive():
                    raise
                self.found[key] = None
            else:
                self.found[key] = allocation, physical
        return True
