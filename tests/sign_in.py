"""Browsers that sign in: an API whose tokens a stand-in of Keystone issues, and what its users send."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from twisted.internet.task import Clock

from meter.api import KeystoneTokens
from meter.interfaces import Unavailable
from meter.openstack import Credentials
from meter.openstack import Token
from meter.openstack.sign_in import OwnProject
from meter.openstack.sign_in import SignInRefused
from tests.api_client import RECORDED
from tests.api_client import ApiClient
from tests.api_client import Response

PROJECTS = {"blue": "The blue project", "red": "<script>red"}
"""Names of the projects of ``ann``, by id."""


@dataclass
class StandInKeystone:
    """Issues tokens to ``ann``, whose password is ``right``, for one of :data:`PROJECTS` or for none, and keeps what it was asked.

    While ``away`` it does not answer; with ``second_factor`` it wants one. It does not exchange tokens for the project ``far``.
    """

    auth_url: str = "http://keystone"
    away: bool = False
    second_factor: bool = False
    asked: list[Credentials] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    valid: dict[str, Token] = field(default_factory=dict)

    def issue(self, project: str | None, *roles: str, hours: float = 1) -> str:
        """Issue a token."""
        token = Token(
            id=f"{project}-{len(self.valid) + len(self.revoked)}",
            issued_at=datetime(2026, 11, 22, tzinfo=UTC),
            expires_at=RECORDED + timedelta(hours=hours),
            user_id="user-of-ann",
            user_name="ann",
            project_id=project,
            project_name=PROJECTS.get(project or "", ""),
            roles=frozenset(roles),
        )
        self.valid[token.id] = token
        return token.id

    async def validate(self, token: str) -> Token | None:
        """Validate, for the API."""
        self._answer()
        return self.valid.get(token)

    async def token(self, credentials: Credentials) -> Token:
        """Issue a token for credentials."""
        self.asked.append(credentials)
        self._answer()
        if self.second_factor:
            raise SignInRefused("second factor")
        right = "right" in (credentials.password, credentials.application_credential_secret)
        if not right and credentials.token not in self.valid:
            raise SignInRefused("credentials")
        project = credentials.project_id or credentials.project_name or None
        if project == "far":
            raise SignInRefused("scope")
        if credentials.application_credential_secret:
            project = "blue"
        return self.valid[self.issue(project)]

    async def projects(self, token: str) -> Sequence[OwnProject]:
        """List the projects of ``ann``."""
        self._answer()
        return [OwnProject(id, name, "default") for id, name in PROJECTS.items()]

    async def revoke(self, token: str) -> None:
        """End a token."""
        self._answer()
        self.revoked.append(token)
        self.valid.pop(token, None)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("keystone at http://10.0.0.1 does not answer")


class Browser:
    """A browser at an API: keeps cookies, says that pages send its forms, and asks for HTML."""

    def __init__(self, api: ApiClient) -> None:
        self.api = api
        self.cookies: dict[str, str] = {}

    def get(self, path: str, **headers: str) -> Response:
        """Return the page at ``path``; a redirect is not followed."""
        return self._ask(path, "GET", None, headers)

    def send(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> Response:
        """Send a form of an own page. Without TLS, browsers send no ``Sec-Fetch-Site``."""
        sent = {"Origin": "http://cloud:8777", "Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._ask(path, "POST", urlencode(fields).encode(), sent)

    def _ask(self, path: str, method: str, body: bytes | None, headers: dict[str, str]) -> Response:
        cookies = (
            {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        )
        accept = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        response = self.api(path, method=method, body=body, headers={**accept, **cookies, **headers})
        for cookie in response.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return response


def text_of(response: Response) -> str:
    """Return the text of a page, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", response.body.decode())).split())


def keystone_browser(**collaborators: Any) -> tuple[Browser, StandInKeystone]:
    """Return a browser at an API of mode ``keystone``, and its Keystone."""
    keystone = StandInKeystone()
    clock = Clock()
    tokens = KeystoneTokens(keystone.validate, clock, uri="http://keystone")
    api = ApiClient(clock=clock, auth=tokens, issuer=keystone, **collaborators)
    return Browser(api), keystone
