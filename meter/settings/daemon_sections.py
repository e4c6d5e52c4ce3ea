"""Which sections of the configuration are of other daemons: one file serves all, and each reads the sections that it needs."""

from __future__ import annotations

FOREIGN_SECTIONS = {
    "meter": frozenset[str](),
    "meter-compute": frozenset(
        {
            "store",
            "central",
            "openstack",
            "collector",
            "notifications",
            "completeness",
            "identities",
            "rating",
            "api",
            "listeners",
        }
    ),
    "meter-central": frozenset(
        {"store", "compute", "collector", "notifications", "completeness", "identities", "rating", "api", "listeners"}
    ),
    "meter-collector": frozenset({"polling", "spool", "compute", "openstack", "api", "pollsters"}),
    "meter-api": frozenset(
        {
            "polling",
            "spool",
            "units",
            "plugins",
            "compute",
            "central",
            "openstack",
            "collector",
            "notifications",
            "identities",
            "pollsters",
            "listeners",
        }
    ),
}
"""Sections whose changes say nothing to a daemon, by its name."""


def concerns(daemon: str, section: str) -> bool:
    """Return whether ``daemon`` reads ``section``."""
    return section not in FOREIGN_SECTIONS[daemon]
