"""Settings of the HTTP API and its authentication."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic import SecretStr

from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section


class ApiTokenSection(Section):
    """One static token of the API."""

    sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="SHA-256 of the token in hexadecimal: printf %s TOKEN | sha256sum"
    )
    admin: bool = Field(default=False, description="Whether the token gives access to the samples of all projects.")
    project_id: str | None = Field(
        default=None, description="Project whose samples the token gives access to, unless admin is true."
    )
    user_id: str | None = Field(default=None, description="Name of the client in the access log.")


class ApiKeystoneSection(Section):
    """How the API validates the tokens of its clients with Keystone."""

    auth_url: str = Field(default="", description="URL of Keystone: https://keystone.example.org/v3")
    username: str = Field(
        default="meter", description="User that the API authenticates as; it must be allowed to validate tokens."
    )
    password: SecretStr | None = Field(default=None, description="Password of that user.")
    password_file: str = Field(default="", description="File that contains the password.")
    user_domain_name: str = Field(default="Default", description="Domain of that user.")
    project_name: str = Field(default="service", description="Project in which that user has a role.")
    project_domain_name: str = Field(default="Default", description="Domain of that project.")
    ca_file: str = Field(
        default="",
        description="CA certificates (PEM) that Keystone's certificate is verified against; the system's by default.",
    )
    insecure: bool = Field(
        default=False,
        description="Accept any TLS certificate. Anyone between the API and Keystone can then read the password and the tokens.",
    )
    admin_roles: list[str] = Field(
        default_factory=lambda: ["admin"],
        description="Roles that give access to the samples of all projects.",
    )
    revalidate_seconds: Seconds = Field(
        default=60.0,
        description="How long a validated token is cached. A revoked token is accepted for this long at most.",
    )
    cached_tokens: Count = Field(default=10_000, description="Maximum number of tokens in the cache.")


class ApiAuthSection(Section):
    """Authentication of API clients."""

    mode: Literal["none", "tokens", "keystone"] = Field(
        default="none",
        description="none: every client sees everything, so only loopback addresses are allowed in listen. tokens: clients send one of the tokens below as X-Auth-Token. keystone: clients send a Keystone token.",
    )
    tokens: list[ApiTokenSection] = Field(
        default_factory=list, description="[[api.auth.tokens]]: sha256, and admin or project_id."
    )
    keystone: ApiKeystoneSection = ApiKeystoneSection()


class ApiPostedSamplesSection(Section):
    """What clients may POST if accept_samples is true."""

    tenant_meters: list[str] = Field(
        default_factory=lambda: ["custom.*"],
        description="Shell patterns of the meters that clients without admin access may POST, in which {project_id} stands for their project. A meter of any plugin, or of which others have samples, is refused nevertheless.",
    )
    signed_meters: list[str] = Field(
        default_factory=list,
        description="Shell patterns of the meters whose volumes, POSTed by clients without admin access, may be negative.",
    )
    max_age_seconds: Seconds = Field(
        default=604_800.0, description="How far back the timestamp of a POSTed sample may be."
    )
    max_admin_age_seconds: Seconds = Field(
        default=34_560_000.0,
        description="The same for clients with admin access, so that they can import older samples.",
    )
    max_ahead_seconds: Seconds = Field(
        default=300.0, description="How far ahead of the clock of meter-api the timestamp of a POSTed sample may be."
    )


class ApiSection(Section):
    """The HTTP API."""

    listen: str = Field(
        default="tcp:8777:interface=127.0.0.1", description="Twisted endpoint description of the address to listen on."
    )
    base_url: str = Field(
        default="",
        description="URL under which clients reach the API, used for links in responses: https://metering.example.org. By default it is taken from each request.",
    )
    default_limit: Count = Field(
        default=100, description="Number of entries in a response if the request sets no limit."
    )
    max_limit: Count = Field(default=10000, description="Largest limit that a request may set.")
    max_statistics: Count = Field(
        default=200_000,
        description="Maximum number of statistics windows, over all groups, in one response; a query with more is refused.",
    )
    max_body_bytes: Count = Field(
        default=1024 * 1024, description="Maximum size of a request body; larger requests are refused."
    )
    max_requests: Count = Field(
        default=100,
        description="Maximum number of requests in progress; further requests are answered 503 with Retry-After.",
    )
    max_live: Count = Field(default=50, description="Maximum number of clients of /v2/live at the same time.")
    accept_samples: bool = Field(
        default=False,
        description="Accept samples that clients POST, sign them and publish them on the bus. meter-api needs the bus for this only.",
    )
    posted_samples: ApiPostedSamplesSection = ApiPostedSamplesSection()
    cors_origins: list[str] = Field(
        default_factory=list,
        description='Origins of web pages that may call the API: ["https://dashboard.example.org"], or ["*"] for all.',
    )
    access_log: bool = Field(default=False, description="Log each request with its client and its status.")
    auth: ApiAuthSection = ApiAuthSection()
