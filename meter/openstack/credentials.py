"""Keystone's URL and our credentials: from settings, ``clouds.yaml`` or ``OS_*`` environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from meter.http import TlsOptions
from meter.yaml_faults import yaml_fault

SECRETS = ("password", "application_credential_secret", "token")


class BadCredentials(ValueError):
    """Incomplete or contradictory credentials; the text says what is missing or wrong, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Credentials for Keystone v3. Fields are named as in ``clouds.yaml``; an empty text is none.

    The authentication method is the first of application credential, token and password that is given. The scope is
    the system, a project, a domain, or none; an application credential has its own.
    """

    auth_url: str
    username: str = ""
    user_id: str = ""
    user_domain_name: str = ""
    user_domain_id: str = ""
    password: str = field(default="", repr=False)
    application_credential_id: str = ""
    application_credential_name: str = ""
    application_credential_secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    project_name: str = ""
    project_id: str = ""
    project_domain_name: str = ""
    project_domain_id: str = ""
    domain_name: str = ""
    domain_id: str = ""
    system_scope: str = ""

    def __post_init__(self) -> None:
        """Raise :class:`BadCredentials` for what Keystone would reject."""
        if not self.auth_url.startswith(("http://", "https://")):
            raise BadCredentials(f"auth_url should be an http:// or https:// URL, not {self.auth_url!r}")
        if not (self.application_credential_secret or self.token or self.password):
            raise BadCredentials("needs a password, application_credential_secret or token")
        if self.password and not (self.username or self.user_id or self.application_credential_secret or self.token):
            raise BadCredentials("a password needs username or user_id")
        if self.application_credential_secret and not self.application_credential_id:
            if not self.application_credential_name:
                raise BadCredentials("an application_credential_secret needs application_credential_id or _name")
            if not (self.username or self.user_id):
                raise BadCredentials(
                    "application_credential_name needs username or user_id: names are unique only per user"
                )
        if self.system_scope not in ("", "all"):
            raise BadCredentials(f"system_scope should be 'all' or nothing, not {self.system_scope!r}")

    def request(self) -> dict[str, Any]:
        """Return the body of ``POST /v3/auth/tokens``."""
        auth: dict[str, Any] = {"identity": self._identity()}
        scope = self._scope()
        if scope is not None:
            auth["scope"] = scope
        return {"auth": auth}

    def _identity(self) -> dict[str, Any]:
        if self.application_credential_secret:
            credential: dict[str, Any] = {"secret": self.application_credential_secret}
            if self.application_credential_id:
                credential["id"] = self.application_credential_id
            else:
                credential |= {"name": self.application_credential_name, "user": self._user()}
            return {"methods": ["application_credential"], "application_credential": credential}
        if self.token:
            return {"methods": ["token"], "token": {"id": self.token}}
        return {"methods": ["password"], "password": {"user": {**self._user(), "password": self.password}}}

    def _user(self) -> dict[str, Any]:
        if self.user_id:
            return {"id": self.user_id}
        return {"name": self.username, "domain": _domain(self.user_domain_id, self.user_domain_name)}

    def _scope(self) -> dict[str, Any] | None:
        if self.application_credential_secret:
            return None  # Keystone rejects a request with a scope other than the credential's own
        if self.system_scope:
            return {"system": {"all": True}}
        if self.project_id:
            return {"project": {"id": self.project_id}}
        if self.project_name:
            domain = _domain(self.project_domain_id, self.project_domain_name)
            return {"project": {"name": self.project_name, "domain": domain}}
        if self.domain_id or self.domain_name:
            return {"domain": _domain(self.domain_id, self.domain_name)}
        return None


def _domain(id_: str, name: str) -> dict[str, str]:
    """Return the domain to send: like OpenStack's clients, the one with the id ``default`` if none is given."""
    return {"name": name} if name and not id_ else {"id": id_ or "default"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudConfig:
    """One cloud of ``clouds.yaml``: credentials, region, interface of its endpoints, and TLS."""

    credentials: Credentials
    region: str = ""
    interface: str = "public"
    tls: TlsOptions = field(default_factory=TlsOptions)


NAMES = frozenset(each.name for each in fields(Credentials))

OTHER_NAMES = {
    "tenant_name": "project_name",
    "tenant_id": "project_id",
    "default_domain": "user_domain_id",
}
"""Older names in clouds.yaml and the environment variables."""


def from_variables(variables: Mapping[str, str]) -> CloudConfig | None:
    """Return the cloud that ``OS_*`` variables describe, ``None`` without ``OS_AUTH_URL``."""
    if not variables.get("OS_AUTH_URL"):
        return None
    given = {
        name.removeprefix("OS_").lower(): value for name, value in variables.items() if name.startswith("OS_") and value
    }
    return _cloud_config(
        given,
        {
            "region_name": given.get("region_name"),
            "interface": given.get("interface") or given.get("endpoint_type"),
            "cacert": given.get("cacert"),
            "cert": given.get("cert"),
            "key": given.get("key"),
            "verify": given.get("insecure", "").lower() not in ("1", "true", "yes"),
        },
        "the OS_* variables",
    )


def from_clouds(name: str, files: Sequence[Path]) -> CloudConfig:
    """Return the cloud ``name`` of the first of ``files`` that exists, with secrets from ``secure.yaml`` beside it."""
    for file in files:
        if file.is_file():
            break
    else:
        raise BadCredentials(f"no such file: {', '.join(map(str, files))}")
    cloud = _cloud(file, name)
    if cloud is None:
        raise BadCredentials(f"{file} has no cloud {name!r}")
    secure = file.with_name("secure.yaml")
    secrets = (_cloud(secure, name) if secure.is_file() else None) or {}
    auth = {**_mapping(cloud.get("auth"), file), **_mapping(secrets.get("auth"), secure)}
    return _cloud_config(auth, {**cloud, **secrets}, f"cloud {name!r} of {file}")


def clouds_files(variables: Mapping[str, str], configured: str = "") -> list[Path]:
    """Return the paths where ``clouds.yaml`` may be, in the search order of OpenStack's clients."""
    named = configured or variables.get("OS_CLIENT_CONFIG_FILE", "")
    if named:
        return [Path(named)]
    home = Path(variables.get("HOME", "/"))
    return [Path("clouds.yaml"), home / ".config/openstack/clouds.yaml", Path("/etc/openstack/clouds.yaml")]


def _cloud(file: Path, name: str) -> dict[str, Any] | None:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadCredentials(f"{file} cannot be read: {yaml_fault(error)}") from None
    except (OSError, ValueError) as error:
        raise BadCredentials(f"{file} cannot be read: {error}") from None
    clouds = _mapping(_mapping(document, file).get("clouds"), file)
    return _mapping(clouds[name], file) if name in clouds else None


def _mapping(value: Any, file: Path) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadCredentials(f"{file}: expected mappings, like clouds: NAME: auth: …")  # a secret may stand there
    return value


def _cloud_config(auth: Mapping[str, Any], cloud: Mapping[str, Any], where: str) -> CloudConfig:
    given = {
        OTHER_NAMES.get(name, name): str(value) for name, value in auth.items() if OTHER_NAMES.get(name, name) in NAMES
    }
    given.setdefault("auth_url", "")
    kind = str(cloud.get("auth_type") or auth.get("auth_type") or "").removeprefix("v3")
    secret_of = {"password": "password", "applicationcredential": "application_credential_secret", "token": "token"}
    if kind and kind not in secret_of:
        raise BadCredentials(f"{where}: auth_type should be password, v3applicationcredential or v3token, not {kind!r}")
    if kind:
        # A file may hold secrets of other authentication methods as well.
        given = {name: value for name, value in given.items() if name not in SECRETS or name == secret_of[kind]}
    try:
        return CloudConfig(
            credentials=Credentials(**given),
            region=str(cloud.get("region_name") or ""),
            interface=str(cloud.get("interface") or "public").removesuffix("URL"),
            tls=TlsOptions(
                ca_file=str(cloud.get("cacert") or ""),
                cert_file=str(cloud.get("cert") or ""),
                key_file=str(cloud.get("key") or ""),
                insecure=cloud.get("verify", True) is False or cloud.get("insecure") is True,
            ),
        )
    except BadCredentials as error:
        raise BadCredentials(f"{where}: {error}") from None
