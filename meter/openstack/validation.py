"""Validation of the tokens that clients of the API send."""

from __future__ import annotations

from typing import Any

from meter.http import TlsOptions
from meter.http.factory import create_client
from meter.openstack.credentials import Credentials
from meter.openstack.keystone import Keystone

CONNECT_SECONDS = 5.0
TIMEOUT_SECONDS = 10.0
"""Limits of requests to Keystone. They are shorter than those of pollsters, because a client of the API waits for the result."""


def validating_keystone(reactor: Any, tls: TlsOptions, **account: str) -> Keystone:
    """Return a Keystone client that validates tokens; ``account`` has the fields of ``Credentials``.

    Raises :class:`~meter.openstack.credentials.BadCredentials` or :class:`~meter.tls.BadTlsFile`.
    """
    client = create_client(reactor, tls, connect_seconds=CONNECT_SECONDS, timeout_seconds=TIMEOUT_SECONDS)
    return Keystone(client.send, Credentials(**account), reactor)
