"""Asking Keystone about the tokens that others present."""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.web.client import Agent

from meter.http.exchange import HttpClient
from meter.http.tls import Policy
from meter.openstack.credentials import Credentials
from meter.openstack.credentials import Tls
from meter.openstack.keystone import Keystone

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""Somebody waits for the answer; a Keystone that takes longer is as good as away."""


def validating_keystone(reactor: Any, tls: Tls, **account: str) -> Keystone:
    """Return the Keystone of ``account`` to ask whose a token is; it gives up sooner than one that is asked for usage.

    ``account`` has the fields of :class:`~meter.openstack.credentials.Credentials`. Raises
    :class:`~meter.openstack.credentials.BadCredentials` for what cannot work.
    """
    agent = Agent(reactor, contextFactory=Policy(tls), connectTimeout=CONNECT_SECONDS)
    web = HttpClient(HTTPClient(agent), reactor, timeout_seconds=ANSWER_SECONDS)
    return Keystone(web.exchange, Credentials(**account), reactor)
