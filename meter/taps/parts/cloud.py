"""Adds the OpenStack client to a daemon, configured by ``[openstack]``, ``clouds.yaml`` or ``OS_*`` variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meter.daemon.request_metrics import RequestMetrics
from meter.http import BadTlsFile
from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.http import IHttpClient
from meter.http import ServiceLimits
from meter.http import TlsOptions
from meter.http.factory import create_limited_client
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import IDependsOnIntervals
from meter.openstack import IOpenStack
from meter.openstack import Keystone
from meter.openstack.credentials import BadCredentials
from meter.openstack.credentials import CloudConfig
from meter.openstack.credentials import clouds_files
from meter.openstack.credentials import from_clouds
from meter.openstack.credentials import from_variables
from meter.plugins.registry import CENTRAL
from meter.settings import OpenStackSection
from meter.settings import ServiceLimitsSection
from meter.taps.daemon import Daemon


def add_cloud(daemon: Daemon) -> dict[Any, Any]:
    """Add the HTTP client and, if one is configured, the cloud; return them as providers for pollsters, by interface."""
    settings = daemon.config.openstack
    try:
        config = cloud_config(settings, os.environ)
        tls = config.tls if config else _tls_options(settings)
        client = create_limited_client(
            daemon.reactor,
            tls,
            max_body_bytes=settings.max_body_bytes,
            limits=_limits(settings.limits),
            by_service={name: _limits(each) for name, each in settings.by_service.items()},
            metrics=RequestMetrics(daemon.registry),
        )
    except (BadCredentials, BadTlsFile) as error:
        daemon.problems.append(f"[openstack] {error}")
        return {}
    if tls.insecure:
        daemon.warnings.append(
            "[openstack] insecure: the services' certificates are not verified; a man in the middle can read"
            " the password and the tokens"
        )
    if config is None:
        return {IHttpClient: client}
    for each in daemon.plugins(CENTRAL):
        if each.state == "pending" and IDependsOnIntervals.providedBy(each.plugin):
            conflicts = each.plugin.interval_conflicts(daemon.config.polling.interval_of)
            daemon.problems += [f"[pollsters.{each.name}] {text}" for text in conflicts]

    async def send(request: HttpRequest) -> HttpResponse:
        return await client.send("identity", request)

    keystone = Keystone(send, config.credentials, daemon.reactor, renew_before_seconds=settings.renew_before_seconds)
    cloud = Cloud(
        client,
        keystone,
        interface=config.interface,
        region=config.region,
        page_size=settings.page_size,
        max_pages=settings.max_pages,
        clock=daemon.reactor,
    )
    daemon.add(cloud)
    return {IHttpClient: client, IOpenStack: cloud}


def cloud_config(settings: OpenStackSection, variables: Mapping[str, str]) -> CloudConfig | None:
    """Return the cloud of ``[openstack.auth]``, else of ``cloud`` or ``OS_CLOUD``, else of ``OS_*``, else ``None``."""
    given = {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in settings.auth
        if not name.endswith("_file")
    }
    name = settings.cloud or variables.get("OS_CLOUD", "")
    config: CloudConfig | None
    if given["auth_url"]:
        config = CloudConfig(credentials=Credentials(**given))
    elif name:
        config = from_clouds(name, clouds_files(variables, settings.clouds_file))
    else:
        config = from_variables(variables)
    if config is None:
        return None
    override = _tls_options(settings)
    return replace(
        config,
        region=settings.region or config.region,
        interface=settings.interface or config.interface,
        tls=TlsOptions(
            ca_file=override.ca_file or config.tls.ca_file,
            cert_file=override.cert_file or config.tls.cert_file,
            key_file=override.key_file or config.tls.key_file,
            insecure=override.insecure or config.tls.insecure,
        ),
    )


def _tls_options(settings: OpenStackSection) -> TlsOptions:
    return TlsOptions(
        ca_file=settings.ca_file, cert_file=settings.cert_file, key_file=settings.key_file, insecure=settings.insecure
    )


def _limits(section: ServiceLimitsSection) -> ServiceLimits:
    return ServiceLimits(**section.model_dump())
