"""Durability: whether committed samples survive a crash of PostgreSQL. Meter acknowledges a sample after the commit."""

from __future__ import annotations

from twisted.logger import Logger

from meter.store.postgres.pool import Session

UNSAFE = (
    "SELECT name, setting FROM pg_settings"
    " WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off' ORDER BY name"
)


async def unsafe_settings(session: Session) -> dict[str, str]:
    """Return the settings of this session with which a crash may lose committed samples."""
    return dict(await session.rows(UNSAFE))


class Durability:
    """Warns of settings with which a crash may lose committed samples: once, and again after they have changed."""

    _log = Logger()

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    async def check(self, session: Session) -> None:
        """Check the settings of a new session."""
        found = await unsafe_settings(session)
        if found and found != self._known:
            self._log.warn(
                "a crash of PostgreSQL may lose committed samples because of {settings}: set them to on",
                settings=", ".join(f"{name} = {setting}" for name, setting in found.items()),
            )
        self._known = found
