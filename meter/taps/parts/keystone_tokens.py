"""The validation of the API's tokens by Keystone, as ``[api.auth.keystone]`` configures it."""

from __future__ import annotations

from typing import Any

from meter.api import PROBE_SECONDS
from meter.api import AdminRule
from meter.api import KeystoneTokens
from meter.api import StaticTokens
from meter.api import ValidationLimits
from meter.daemon.services import Periodic
from meter.http import BadTlsFile
from meter.http import TlsOptions
from meter.openstack.credentials import BadCredentials
from meter.openstack.sign_in import KeystoneSignIn
from meter.openstack.sign_in import keystone_sign_in
from meter.openstack.validation import validating_keystone
from meter.settings import Config
from meter.taps.daemon import Daemon


def add_keystone_tokens(daemon: Daemon, addresses: Any) -> tuple[Any, KeystoneSignIn | None]:
    """Add the validation, and return it and the sign-in at Keystone; the settings of both can be reloaded.

    What makes them impossible is a problem of the daemon.
    """
    if daemon.config.api.auth.keystone.insecure:
        daemon.warnings.append("[api.auth.keystone] insecure: the certificate of Keystone is not verified")
    try:
        tokens, issuer = _validation(daemon, daemon.config, addresses), _issuer(daemon, daemon.config)
    except ValueError as error:
        daemon.problems.append(str(error))
        return StaticTokens(()), None

    def change(config: Config) -> None:
        other_tokens, other_issuer = _validation(daemon, config, addresses), _issuer(daemon, config)
        tokens.replace(other_tokens)
        issuer.replace(other_issuer)

    daemon.reload.add(["api.auth.keystone.*"], change)
    daemon.dependencies.append(tokens)
    daemon.add(Periodic(tokens.probe, PROBE_SECONDS, daemon.reactor, name="keystone check"))
    return tokens, issuer


def _issuer(daemon: Daemon, config: Config) -> KeystoneSignIn:
    """Return what issues tokens to people who sign in to the pages; ``ValueError`` for files that cannot be used."""
    keystone = config.api.auth.keystone
    return keystone_sign_in(
        daemon.reactor, TlsOptions(ca_file=keystone.ca_file, insecure=keystone.insecure), keystone.auth_url
    )


def _validation(daemon: Daemon, config: Config, addresses: Any) -> KeystoneTokens:
    """Return the validation as ``config`` has it; ``ValueError`` if it is not possible."""
    keystone = config.api.auth.keystone
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
    except (BadCredentials, BadTlsFile) as error:
        raise ValueError(f"[api.auth.keystone] {error}") from error
    return KeystoneTokens(
        asked.validate,
        daemon.reactor,
        check=asked.check,
        uri=keystone.auth_url,
        public_uri=keystone.www_authenticate_uri,
        admins=AdminRule(keystone.admin_roles, keystone.admin_scopes, keystone.admin_projects),
        revalidate_seconds=keystone.revalidate_seconds,
        max_cached_tokens=keystone.cached_tokens,
        refused_seconds=keystone.refused_seconds,
        max_refused_tokens=keystone.max_refused_tokens,
        limits=ValidationLimits(
            max_in_progress=keystone.max_validations,
            max_in_progress_per_address=keystone.max_validations_per_address,
            max_refusals=keystone.max_refusals,
        ),
        addresses=addresses,
    )
