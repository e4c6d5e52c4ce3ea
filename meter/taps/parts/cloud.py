"""The cloud that ``[openstack]``, ``clouds.yaml`` or ``OS_*`` variables name, as a part of a daemon."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meter.daemon.metrics import RequestMetrics
from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.http import IHttpClient
from meter.http import Limits
from meter.http.tls import web
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import IDependsOnIntervals
from meter.openstack import IOpenStack
from meter.openstack import Keystone
from meter.openstack.credentials import Account
from meter.openstack.credentials import BadCredentials
from meter.openstack.credentials import Tls
from meter.openstack.credentials import clouds_files
from meter.openstack.credentials import from_clouds
from meter.openstack.credentials import from_variables
from meter.plugins.registry import CENTRAL
from meter.settings import BudgetSection
from meter.settings import OpenStackSection
from meter.taps.daemon import Daemon


def add_cloud(daemon: Daemon) -> dict[Any, Any]:
    """Add the cloud, if there is one; return what pollsters may ask, by interface."""
    settings = daemon.config.openstack
    try:
        account = account_of(settings, os.environ)
        tls = account.tls if account else _tls(settings)
        asking = web(
            daemon.reactor,
            tls,
            largest_body_bytes=settings.largest_body_bytes,
            limits=_limits(settings.budget),
            by_service={name: _limits(each) for name, each in settings.by_service.items()},
            account=RequestMetrics(daemon.registry),
        )
    except BadCredentials as error:
        daemon.problems.append(f"[openstack] {error}")
        return {}
    if tls.insecure:
        daemon.warnings.append(
            "[openstack] insecure: any certificate is taken; whoever is between here and the services can read"
            " the password and the tokens"
        )
    if account is None:
        return {IHttpClient: asking}
    for each in daemon.plugins(CENTRAL):
        if each.state == "asked at start" and IDependsOnIntervals.providedBy(each.plugin):
            wrong = each.plugin.interval_conflicts(daemon.config.polling.interval_of)
            daemon.problems += [f"[pollsters.{each.name}] {text}" for text in wrong]

    async def send(request: HttpRequest) -> HttpResponse:
        return await asking.exchange("identity", request)

    keystone = Keystone(send, account.credentials, daemon.reactor, renew_before_seconds=settings.renew_before_seconds)
    cloud = Cloud(
        asking,
        keystone,
        interface=account.interface,
        region=account.region,
        page_size=settings.page_size,
        most_pages=settings.most_pages,
        clock=daemon.reactor,
    )
    daemon.add(cloud)
    return {IHttpClient: asking, IOpenStack: cloud}


def account_of(settings: OpenStackSection, variables: Mapping[str, str]) -> Account | None:
    """Return who we are: by ``[openstack.auth]``, else by ``cloud`` or ``OS_CLOUD``, else by ``OS_*``; or ``None``."""
    given = {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in settings.auth
        if not name.endswith("_file")
    }
    name = settings.cloud or variables.get("OS_CLOUD", "")
    account: Account | None
    if given["auth_url"]:
        account = Account(credentials=Credentials(**given))
    elif name:
        account = from_clouds(name, clouds_files(variables, settings.clouds_file))
    else:
        account = from_variables(variables)
    if account is None:
        return None
    ours, theirs = _tls(settings), account.tls
    return replace(
        account,
        region=settings.region or account.region,
        interface=settings.interface or account.interface,
        tls=Tls(
            ca_file=ours.ca_file or theirs.ca_file,
            cert_file=ours.cert_file or theirs.cert_file,
            key_file=ours.key_file or theirs.key_file,
            insecure=ours.insecure or theirs.insecure,
        ),
    )


def _tls(settings: OpenStackSection) -> Tls:
    return Tls(
        ca_file=settings.ca_file, cert_file=settings.cert_file, key_file=settings.key_file, insecure=settings.insecure
    )


def _limits(budget: BudgetSection) -> Limits:
    return Limits(**budget.model_dump())
