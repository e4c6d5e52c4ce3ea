"""The HTTP API, its authentication and its port."""

from __future__ import annotations

import socket
from typing import Any

from twisted.logger import Logger

from meter.api_token import IApiTokens
from meter.daemon.http_connections import ConnectionLimits
from meter.daemon.ports import Port
from meter.daemon.ports import address
from meter.daemon.services import Periodic
from meter.interfaces import IBus
from meter.rating.statements.published_keys import PublishedKeys
from meter.rating.statements.statement_keys import public_directory
from meter.settings import Config
from meter.settings.config_file import has_key
from meter.store import PostgresStore
from meter.taps.daemon import Daemon
from meter.taps.parts.bus_services import bus_services
from meter.taps.parts.full_collections import add_full_collections
from meter.taps.parts.prices import add_prices
from meter.taps.parts.server_tls import server_tls

_log = Logger()


def add_api(daemon: Daemon, store: PostgresStore, bus: IBus | None) -> None:
    """Add the HTTP API and its port. With ``bus`` it accepts samples from clients and publishes them there."""
    # Importing klein installs the global reactor, which twistd has chosen by now.
    from meter.api import Api
    from meter.api import HostPolicy
    from meter.api import PostedSampleRules
    from meter.api import PromqlLimits
    from meter.api import RequestLimits
    from meter.api import SampleIngest
    from meter.api import make_site

    settings = daemon.config.api
    daemon.warnings += shares_warnings(daemon.config)
    rules = PostedSampleRules(declared=daemon.declared_meters, **settings.posted_samples.model_dump())
    shares = settings.shares
    addresses = _client_addresses(daemon)
    auth, issuer = _authentication(daemon, addresses, store.tokens)
    api = Api(
        store,
        daemon.reactor,
        auth=auth,
        issuer=issuer,
        ingest=SampleIngest(daemon.keys, daemon.config.meter.source, bus, store, rules) if bus else None,
        keys=daemon.keys if bus or has_key(daemon.config) else None,
        limits=RequestLimits(
            default_limit=settings.default_limit,
            max_limit=settings.max_limit,
            max_windows=settings.max_statistics,
            max_requests=settings.max_requests,
            max_live=settings.max_live,
            reserved_requests=shares.reserved_requests,
            max_requests_per_project=shares.max_requests_per_project,
            max_costly_per_project=shares.max_costly_per_project,
            max_live_per_project=shares.max_live_per_project,
            max_requests_per_address=shares.max_requests_per_address,
            max_live_per_address=shares.max_live_per_address,
            readers=daemon.config.store.readers,
            max_readers_per_project=shares.max_readers_per_project,
            reserved_readers=shares.reserved_readers,
            max_wait_seconds=daemon.config.store.max_wait_seconds,
            min_bytes_per_second=settings.min_bytes_per_second,
            max_stall_seconds=settings.max_stall_seconds,
            max_export_seconds=settings.max_export_seconds,
            promql=PromqlLimits(**settings.prometheus.model_dump()),
        ),
        hosts=HostPolicy(
            [*settings.host_names, socket.gethostname()],
            settings.base_url or None,
            refuse_unknown=settings.auth.mode == "none",
        ),
        cors_origins=settings.cors_origins,
        addresses=addresses,
        prices=add_prices(daemon),
        bus=bus_services(daemon),
        rating=_rating(daemon),
        # In mode tokens, StoredTokens itself accepts tokens for that long.
        max_unchecked_seconds=settings.auth.max_unchecked_seconds if settings.auth.mode == "keystone" else 0.0,
    )
    add_full_collections(daemon, lambda: api.busy)
    served = make_site(
        api,
        daemon.reactor,
        max_body_bytes=settings.max_body_bytes,
        access_log=settings.access_log,
        limits=ConnectionLimits(
            max_per_address=settings.max_connections_per_address,
            max_open=settings.max_connections,
            max_head_seconds=settings.max_head_seconds,
            max_body_seconds=settings.max_body_seconds,
        ),
        count=lambda reason: daemon.health_metrics.http_rejected("api", reason),
    )

    tls = server_tls(daemon, "api")

    def announce(host: Any) -> None:
        if url := dashboard_url(settings.listen, host, settings.base_url, tls=tls is not None):
            _log.info("dashboard: {url}", url=url)

    daemon.add(
        Port(
            settings.listen,
            served,
            name="api",
            reactor=daemon.reactor,
            clock=daemon.reactor,
            announce=announce,
            tls=tls,
        )
    )


def dashboard_url(listen: str, host: Any, base_url: str, *, tls: bool = False) -> str:
    """Return the URL of the pages of an API that listens at the address ``host``, empty if it is a UNIX socket's.

    ``listen`` is the endpoint description; the port speaks TLS with ``tls``, or if ``listen`` says so. A browser cannot open the address of all interfaces,
    so the name of this host stands for it.
    """
    if base_url:
        return f"{base_url.rstrip('/')}/"
    if not hasattr(host, "port"):
        return ""
    scheme = "https" if tls or listen.startswith(("ssl:", "tls:")) else "http"
    shown = address(host)
    if host.host in ("0.0.0.0", "::"):
        shown = f"{socket.gethostname()}:{host.port}"
    return f"{scheme}://{shown}/"


def shares_warnings(config: Config) -> list[str]:
    """Return a text for each promise of the fair shares that ``config`` has too few readers for."""
    readers, reserved = config.store.readers, config.api.shares.reserved_readers
    if config.api.auth.mode == "none" or readers - min(reserved, readers - 1) > 1:
        return []
    return [
        f"[store] readers: with {readers} and [api.shares] reserved_readers = {reserved}, all tenants share one reader, "
        f"so a costly query delays their other queries; {reserved + 2} readers prevent that"
    ]


def _rating(daemon: Daemon) -> Any:
    from meter.api.rating_services import RatingServices

    settings = daemon.config.rating
    try:
        path = public_directory(settings.signing_key_file, settings.public_keys_directory)
    except ValueError:
        path = None  # there are no keys
    return RatingServices(keys=PublishedKeys(path, daemon.reactor), correct_periods=settings.correct_periods)


def _client_addresses(daemon: Daemon) -> Any:
    from meter.api import ClientAddresses

    try:
        return ClientAddresses(daemon.config.api.trusted_proxies)
    except ValueError as error:
        daemon.problems.append(f"[api] trusted_proxies: {error}")
        return ClientAddresses()


def _authentication(daemon: Daemon, addresses: Any, stored: IApiTokens) -> tuple[Any, Any]:
    """Return the authentication that ``[api.auth]`` names, and what issues tokens to people who sign in, if anything does."""
    from meter.api import NoAuth
    from meter.api import Requester
    from meter.api import StaticToken
    from meter.api import StaticTokens
    from meter.api import StoredTokens

    auth = daemon.config.api.auth
    if auth.mode == "tokens":

        def static_tokens(config: Config) -> list[StaticToken]:
            return [
                StaticToken(each.sha256, Requester(each.admin, each.project_id, each.user_id))
                for each in config.api.auth.tokens
            ]

        configured = StaticTokens(static_tokens(daemon.config))
        daemon.reload.add(["api.auth.tokens"], lambda config: configured.replace(static_tokens(config)))
        both = StoredTokens(stored, configured, daemon.reactor, max_unchecked_seconds=auth.max_unchecked_seconds)
        daemon.dependencies.append(both)
        reading = Periodic(both.refresh, auth.refresh_seconds, daemon.reactor, name="reading of tokens")
        daemon.reload.add(
            ["api.auth.refresh_seconds"], lambda config: reading.set_interval(config.api.auth.refresh_seconds)
        )
        daemon.add(reading)
        return both, None
    if auth.mode == "keystone":
        from meter.taps.parts.keystone_tokens import add_keystone_tokens

        return add_keystone_tokens(daemon, addresses)
    return NoAuth(), None
