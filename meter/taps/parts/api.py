"""The HTTP API, its authentication and its port."""

from __future__ import annotations

from typing import Any

from meter.daemon.ports import Port
from meter.daemon.services import Periodic
from meter.interfaces import IBus
from meter.interfaces import IStore
from meter.taps.daemon import Daemon


def add_api(daemon: Daemon, store: IStore, bus: IBus | None) -> None:
    """Add the HTTP API and its port. With ``bus`` it accepts samples from clients and publishes them there."""
    # Importing klein installs the global reactor, which twistd has chosen by now.
    from meter.api import Api
    from meter.api import PostedSampleRules
    from meter.api import RequestLimits
    from meter.api import SampleIngest
    from meter.api import make_site

    settings = daemon.config.api
    rules = PostedSampleRules(declared=daemon.declared_meters, **settings.posted_samples.model_dump())
    api = Api(
        store,
        daemon.reactor,
        auth=_authentication(daemon),
        ingest=SampleIngest(daemon.keys, daemon.config.meter.source, bus, store, rules) if bus else None,
        limits=RequestLimits(
            default_limit=settings.default_limit,
            max_limit=settings.max_limit,
            max_windows=settings.max_statistics,
            max_requests=settings.max_requests,
            max_live=settings.max_live,
        ),
        base_url=settings.base_url or None,
        cors_origins=settings.cors_origins,
    )
    served = make_site(api, daemon.reactor, max_body_bytes=settings.max_body_bytes, access_log=settings.access_log)
    daemon.add(Port(settings.listen, served, name="api", reactor=daemon.reactor, clock=daemon.reactor))


def _authentication(daemon: Daemon) -> Any:
    """Return the authentication that ``[api.auth]`` names."""
    from meter.api import PROBE_SECONDS
    from meter.api import KeystoneTokens
    from meter.api import NoAuth
    from meter.api import Requester
    from meter.api import StaticToken
    from meter.api import StaticTokens

    auth = daemon.config.api.auth
    if auth.mode == "tokens":
        return StaticTokens(
            StaticToken(each.sha256, Requester(each.admin, each.project_id, each.user_id)) for each in auth.tokens
        )
    if auth.mode == "keystone":
        from meter.http import BadTlsOptions
        from meter.http import TlsOptions
        from meter.openstack.credentials import BadCredentials
        from meter.openstack.validation import validating_keystone

        keystone = auth.keystone
        if keystone.insecure:
            daemon.warnings.append("[api.auth.keystone] insecure: the certificate of Keystone is not verified")
        try:
            asked = validating_keystone(
                daemon.reactor,
                TlsOptions(ca_file=keystone.ca_file, insecure=keystone.insecure),
                auth_url=keystone.auth_url,
                username=keystone.username,
                password=keystone.password.get_secret_value() if keystone.password else "",
                user_domain_name=keystone.user_domain_name,
                project_name=keystone.project_name,
                project_domain_name=keystone.project_domain_name,
            )
        except (BadCredentials, BadTlsOptions) as error:
            daemon.problems.append(f"[api.auth.keystone] {error}")
            return StaticTokens(())
        tokens = KeystoneTokens(
            asked.validate,
            daemon.reactor,
            check=asked.check,
            uri=keystone.auth_url,
            admin_roles=keystone.admin_roles,
            revalidate_seconds=keystone.revalidate_seconds,
            max_cached_tokens=keystone.cached_tokens,
        )
        daemon.dependencies.append(tokens)
        daemon.add(Periodic(tokens.probe, PROBE_SECONDS, daemon.reactor, name="keystone check"))
        return tokens
    return NoAuth()
