"""What every page says of the session of its browser, and the paths that it can come back to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from urllib.parse import urlsplit

from meter.api.auth.browser_session import BrowserSession

MAX_PATH_CHARACTERS = 4000

_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path of this API, with its query: visible ASCII without backslashes, which browsers take for slashes. Two slashes at the
start would begin the name of another host."""

SESSION_PATHS = ("/sign-in", "/sign-out", "/project")


@dataclass(frozen=True, slots=True)
class SessionView:
    """The session as pages show it: whose it is, for which project, and until when. ``here`` is the path of the page."""

    mode: str
    is_admin: bool
    user: str
    project: str
    project_id: str
    expires_at: datetime | None
    here: str

    @property
    def can_switch(self) -> bool:
        """Whether other projects can be chosen."""
        return self.mode == "keystone"


def session_view(session: BrowserSession, url: str) -> SessionView:
    """Return what the page with ``url`` shows of ``session``."""
    requester = session.requester
    parts = urlsplit(url)
    expires_at = requester.expires_at
    return SessionView(
        mode=session.mode,
        is_admin=requester.is_admin,
        user=requester.user_name or requester.user_id or "",
        project=requester.project_name or requester.project_id or "",
        project_id=requester.project_id or "",
        expires_at=None if expires_at is None else datetime.fromtimestamp(int(expires_at), UTC),
        here=own_path(f"{parts.path}?{parts.query}" if parts.query else parts.path),
    )


def own_path(text: str | None) -> str:
    """Return ``text`` if it is a path of this API that a browser can be sent to, else ``/``.

    So no link to the sign-in page can lead to another site afterwards.
    """
    if not text or len(text) > MAX_PATH_CHARACTERS or not _OWN_PATH.fullmatch(text):
        return "/"
    path = urlsplit(text).path
    return "/" if path in SESSION_PATHS else text
