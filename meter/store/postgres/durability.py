"""Durability: whether PostgreSQL still has after a crash what it has confirmed. Meter lets go of a sample on its word."""

from __future__ import annotations

from twisted.logger import Logger

from meter.store.postgres.pool import Session

UNSAFE = (
    "SELECT name, setting FROM pg_settings"
    " WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off' ORDER BY name"
)


async def unsafe_settings(session: Session) -> dict[str, str]:
    """Return the settings with which a confirmed sample may be lost, as they are for this session."""
    return dict(await session.rows(UNSAFE))


class Durability:
    """Warns of settings with which confirmed samples may be lost: once, and again when they have changed."""

    _log = Logger()

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    async def check(self, session: Session) -> None:
        """Look at the settings of a new session."""
        found = await unsafe_settings(session)
        if found and found != self._known:
            self._log.warn(
                "PostgreSQL confirms what a crash may lose: {settings}; set them to on",
                settings=", ".join(f"{name} = {setting}" for name, setting in found.items()),
            )
        self._known = found
