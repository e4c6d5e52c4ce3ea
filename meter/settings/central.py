"""Settings of the central agent: leader election, the cloud to poll, and the limits of requests to its services."""

from __future__ import annotations

from typing import Annotated
from typing import Literal

from pydantic import Field
from pydantic import SecretStr

from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section
from meter.settings.section import matching


class CentralSection(Section):
    """The central agent."""

    leader_group: Annotated[
        str, matching(r"[A-Za-z0-9._-]{0,100}", "at most 100 letters, digits, dots, hyphens and underscores")
    ] = Field(
        default="central",
        description='Central agents of one leader_group on one broker elect a leader, which polls; the others stand by. "": no election, this agent always polls.',
    )
    timeout_seconds: Seconds = Field(
        default=300.0, description="Time limit of one poll by one pollster of the central agent (seconds)."
    )
    pollsters_dir: str = Field(
        default="/etc/meter/pollsters.d",
        description="Directory of declarative pollsters: *.toml (see docs/rest-pollsters.rst and docs/exposition-pollsters.rst) and Ceilometer's dynamic pollsters, *.yaml.",
    )
    identity_interval_seconds: Seconds = Field(
        default=3600.0,
        description="How often the names of projects, domains and users are read from Keystone (see docs/identity-names.rst).",
    )
    identity_users: bool = Field(
        default=True,
        description="Record the names of users, which are personal data; false records those of projects and domains only.",
    )


class OpenStackAuthSection(Section):
    """Meter's credentials for Keystone; the keys are those of clouds.yaml."""

    auth_url: str = Field(default="", description="URL of Keystone: https://keystone.example.org:5000")
    username: str = Field(
        default="", description="Name of a user that is permitted to list the resources of all projects."
    )
    user_id: str = Field(default="", description="ID of the user, instead of username.")
    user_domain_name: str = Field(default="", description="Name of the user's domain. Without it: the default domain.")
    user_domain_id: str = Field(default="", description="ID of the user's domain, instead of user_domain_name.")
    password: SecretStr = Field(default=SecretStr(""), description="Password of the user.")
    password_file: str = Field(default="", description="File that contains the password of the user.")
    application_credential_id: str = Field(
        default="", description="ID of an application credential, instead of a user with a password."
    )
    application_credential_name: str = Field(
        default="", description="Name of the application credential, instead of its ID; needs username or user_id."
    )
    application_credential_secret: SecretStr = Field(
        default=SecretStr(""), description="Secret of the application credential."
    )
    application_credential_secret_file: str = Field(
        default="", description="File that contains the secret of the application credential."
    )
    token: SecretStr = Field(
        default=SecretStr(""), description="Token to authenticate with, instead of a user with a password."
    )
    token_file: str = Field(default="", description="File that contains the token to authenticate with.")
    project_name: str = Field(default="", description="Name of the project that the token is scoped to.")
    project_id: str = Field(
        default="", description="ID of the project that the token is scoped to, instead of project_name."
    )
    project_domain_name: str = Field(default="", description="Name of the domain of project_name.")
    project_domain_id: str = Field(
        default="", description="ID of the domain of project_name, instead of project_domain_name."
    )
    domain_name: str = Field(
        default="", description="Name of the domain that the token is scoped to, instead of a project."
    )
    domain_id: str = Field(
        default="", description="ID of the domain that the token is scoped to, instead of domain_name."
    )
    system_scope: Literal["", "all"] = Field(
        default="", description='"all" scopes the token to the system, instead of a project or domain.'
    )


class ServiceLimitsSection(Section):
    """Rate limit, retries and circuit breaker of requests to one service."""

    requests_per_second: Seconds = Field(
        default=20.0, description="Maximum rate of requests to one service (per second)."
    )
    max_in_flight: Count = Field(
        default=4, description="Maximum number of requests to one service that wait for a response."
    )
    timeout_seconds: Seconds = Field(default=30.0, description="Time limit of one request (seconds).")
    attempts: Count = Field(
        default=3, description="Maximum number of attempts of a GET request while the service fails."
    )
    breaker_failures: Count = Field(default=5, description="Consecutive failures that open the circuit breaker.")
    breaker_seconds: Seconds = Field(
        default=60.0, description="How long the circuit breaker stays open before one trial request (seconds)."
    )
    max_retry_after_seconds: Seconds = Field(
        default=30.0,
        description="Longest Retry-After that requests wait for; a longer one opens the circuit breaker (seconds).",
    )


class OpenStackSection(Section):
    """The cloud to poll. Without any of these settings, OS_CLOUD and the other OS_* environment variables select it."""

    cloud: str = Field(default="", description="Name of a cloud in clouds.yaml, instead of [openstack.auth].")
    clouds_file: str = Field(
        default="", description="Path of clouds.yaml; by default it is searched for as OpenStack's clients do."
    )
    region: str = Field(default="", description="Region whose endpoints are used.")
    interface: Literal["", "public", "internal", "admin"] = Field(
        default="", description="Interface of the endpoints to use; by default that in clouds.yaml, else public."
    )
    ca_file: str = Field(
        default="", description="CA certificates that verify the services, instead of the system's CAs (PEM file)."
    )
    cert_file: str = Field(default="", description="Client certificate (PEM file).")
    key_file: str = Field(default="", description="Private key of the client certificate (PEM file).")
    insecure: bool = Field(
        default=False,
        description="Do not verify the services' certificates: a man in the middle can read the password.",
    )
    page_size: Count = Field(default=500, description="Entries requested per page of a listing.")
    max_pages: Count = Field(default=2000, description="Maximum number of pages of a listing; a longer one fails.")
    max_body_bytes: Count = Field(
        default=64 * 1024 * 1024, description="Maximum size of a response body; a larger one fails (bytes)."
    )
    renew_before_seconds: Seconds = Field(
        default=120.0,
        description="How long before its expiry the token is renewed, at most a quarter of its lifetime (seconds).",
    )
    auth: OpenStackAuthSection = OpenStackAuthSection()
    limits: ServiceLimitsSection = ServiceLimitsSection()
    by_service: dict[str, ServiceLimitsSection] = Field(
        default_factory=dict,
        description="Limits of single services, by type: { image = { requests_per_second = 5.0 } }.",
    )
