"""Asking Keystone about the tokens that others present."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from typing import Any

from treq.client import HTTPClient
from twisted.web.client import Agent

from meter.openstack.credentials import Credentials
from meter.openstack.http import Http
from meter.openstack.keystone import Keystone
from meter.openstack.keystone import Token

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""Somebody waits for the answer; a Keystone that takes longer is as good as away."""


def token_validation(reactor: Any, **account: str) -> Callable[[str], Awaitable[Token | None]]:
    """Return what says whose a token is, ``None`` for one that is not good, by the Keystone of ``account``.

    ``account`` has the fields of :class:`~meter.openstack.credentials.Credentials`. What is returned raises
    ``Unavailable`` while Keystone cannot be asked or does not accept the account.
    """
    web = Http(HTTPClient(Agent(reactor, connectTimeout=CONNECT_SECONDS)), reactor, timeout_seconds=ANSWER_SECONDS)
    return Keystone(web.exchange, Credentials(**account), reactor).validate
