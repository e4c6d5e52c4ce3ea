"""How commands reach a service of OpenStack: with a token of Keystone, as the configuration and the variables ``OS_*`` say."""

from __future__ import annotations

import os
from typing import Any

from meter.commands.command import CommandError
from meter.commands.importing.service_client import KeystoneAuthentication
from meter.http import BadTlsFile
from meter.http import TlsOptions
from meter.http.client import HttpClient
from meter.http.factory import create_client
from meter.openstack import Keystone
from meter.openstack.credentials import BadCredentials
from meter.openstack.credentials import clouds_files
from meter.openstack.credentials import from_clouds
from meter.openstack.credentials import from_variables
from meter.settings import Config


def plain_client(reactor: Any, config: Config, *, command: str, timeout_seconds: float) -> HttpClient:
    """Return an HTTP client with the TLS settings of ``[openstack]``; raise :class:`CommandError`."""
    try:
        return create_client(
            reactor, _tls(config), timeout_seconds=timeout_seconds, max_body_bytes=config.openstack.max_body_bytes
        )
    except BadTlsFile as error:
        raise CommandError(f"{command}: {error}") from error


def keystone_access(
    reactor: Any, config: Config, *, command: str, service: str, url: str, timeout_seconds: float, instead: str
) -> tuple[HttpClient, KeystoneAuthentication]:
    """Return a client and the authentication for ``service`` at ``url``, or where the catalogue says if that is ``""``.

    Raise :class:`CommandError`; ``instead`` is the option that does without Keystone.
    """
    settings = config.openstack
    try:
        name = settings.cloud or os.environ.get("OS_CLOUD", "")
        found = (
            from_clouds(name, clouds_files(os.environ, settings.clouds_file)) if name else from_variables(os.environ)
        )
        if found is None:
            raise CommandError(
                f"{command}: set OS_CLOUD, or the other OS_* variables of OpenStack's clients, or give {instead}"
            )
        tls = _tls(config)
        http = create_client(
            reactor,
            found.tls if tls == TlsOptions() else tls,
            timeout_seconds=timeout_seconds,
            max_body_bytes=settings.max_body_bytes,
        )
    except (BadCredentials, BadTlsFile) as error:
        raise CommandError(f"{command}: {error}") from error
    keystone = Keystone(http.send, found.credentials, reactor)
    return http, KeystoneAuthentication(
        keystone,
        url,
        service=service,
        interface=settings.interface or found.interface,
        region=settings.region or found.region,
    )


def _tls(config: Config) -> TlsOptions:
    settings = config.openstack
    return TlsOptions(
        ca_file=settings.ca_file, cert_file=settings.cert_file, key_file=settings.key_file, insecure=settings.insecure
    )
