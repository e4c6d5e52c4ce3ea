"""Sizes of disk images that libvirt's bulk call does not return, queried once per disk.

While a domain runs, the bulk call returns as the allocation of a disk the highest offset that its guest has written to
since the domain started. Until the first write that is 0, where ``virDomainGetBlockInfo`` (``virsh domblkinfo``, which
Ceilometer reads) returns the space that the image occupies as its allocation and the length of the image as its
physical size. After the first write, and while the domain is off, both calls return the same values (libvirt 9.0;
tests/integration/test_compute_libvirtd.py).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from typing import Any

from meter.hypervisor.library import load_libvirt

QUERY_SECONDS = 0.25
"""Time limit for querying sizes in one reading. The next reading queries the remaining disks."""

MAX_DISKS = 4096
"""Maximum number of disks per domain; the pollsters have the same limit."""

Sizes = tuple[int, int] | None
"""Allocation and physical size in bytes; ``None`` where libvirt returned an error."""


class DiskSizes:
    """Corrects the statistics of the disks in one reading.

    ``known`` has the sizes that earlier readings found, ``found`` those that are valid in this one. A size is valid for
    one run of one domain, as long as the bulk call returns the same values.
    """

    def __init__(self, known: Mapping[Hashable, Sizes], now: Callable[[], float]) -> None:
        self.found: dict[Hashable, Sizes] = {}
        self._known = known
        self._now = now
        self._end = now() + QUERY_SECONDS

    def corrected(self, domain: Any, stats: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``stats`` with the allocation and physical size of each disk from ``virDomainGetBlockInfo``.

        Disks that were not queried in time have no sizes. Where libvirt returns an error, the sizes are unchanged.
        """
        count = stats.get("block.count")
        if not isinstance(count, int) or count < 1 or (number := domain.ID()) < 0:
            return stats
        corrected: dict[str, Any] | None = None
        for index in range(min(count, MAX_DISKS)):
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
        """Set ``found[key]`` from earlier readings or by a call; return whether there was time for it."""
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
