"""The settings of the HTTP API, and who may ask it."""

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
        pattern="^[0-9a-f]{64}$", description="The token's SHA-256 in hexadecimal: printf %s TOKEN | sha256sum"
    )
    admin: bool = Field(default=False, description="Sees the samples of all projects.")
    project_id: str | None = Field(default=None, description="Whose samples it sees, unless it is an admin's.")
    user_id: str | None = Field(default=None, description="Who asks, for the log.")


class ApiKeystoneSection(Section):
    """How the API asks Keystone about the tokens of whoever asks it."""

    auth_url: str = Field(default="", description="Keystone: https://keystone.example.org/v3")
    username: str = Field(default="meter", description="The API's own account, which may validate tokens.")
    password: SecretStr | None = Field(default=None, description="Its password.")
    password_file: str = Field(default="", description="A file that holds it.")
    user_domain_name: str = Field(default="Default", description="The domain of the account.")
    project_name: str = Field(default="service", description="The project in which it has a role.")
    project_domain_name: str = Field(default="Default", description="The domain of that project.")
    ca_file: str = Field(default="", description="Authorities that sign Keystone's certificate, PEM.")
    insecure: bool = Field(
        default=False, description="Take any certificate: whoever is in between can read the password and the tokens."
    )
    admin_roles: list[str] = Field(
        default_factory=lambda: ["admin"],
        description="Whoever has one of these roles sees the samples of all projects.",
    )
    revalidate_seconds: Seconds = Field(
        default=60.0, description="A token is asked about again after so long: a revoked one is let in no longer."
    )
    cached_tokens: Count = Field(default=10_000, description="Tokens that are remembered meanwhile, at most.")


class ApiAuthSection(Section):
    """Who may ask the API."""

    mode: Literal["none", "tokens", "keystone"] = Field(
        default="none",
        description="none: whoever reaches it sees all, so it listens on loopback only. tokens: those listed in tokens, sent as X-Auth-Token. keystone: those that Keystone knows.",
    )
    tokens: list[ApiTokenSection] = Field(
        default_factory=list, description="[[api.auth.tokens]]: sha256, and admin or project_id."
    )
    keystone: ApiKeystoneSection = ApiKeystoneSection()


class ApiSection(Section):
    """The HTTP API."""

    listen: str = Field(
        default="tcp:8777:interface=127.0.0.1", description="Where it listens: a Twisted endpoint description."
    )
    base_url: str = Field(
        default="",
        description="How clients reach it, for the links in answers: https://metering.example.org; by default as the request says.",
    )
    default_limit: Count = Field(default=100, description="Entries in an answer when the question names no limit.")
    largest_limit: Count = Field(default=10000, description="The largest limit a question may name.")
    largest_statistics: Count = Field(
        default=200_000, description="Windows, of all groups together, in one answer of statistics; more are refused."
    )
    largest_body_bytes: Count = Field(default=1024 * 1024, description="Larger requests are refused.")
    most_requests: Count = Field(
        default=100, description="Requests that are answered at the same time; more are told to try again."
    )
    most_live: Count = Field(default=50, description="Clients that follow /v2/live at the same time.")
    accept_samples: bool = Field(
        default=True,
        description="Take samples that clients POST, sign them and send them over the bus. Without it meter-api needs no bus.",
    )
    cors_origins: list[str] = Field(
        default_factory=list,
        description='Pages that may ask from within a browser: ["https://dashboard.example.org"], or ["*"] for any.',
    )
    access_log: bool = Field(default=False, description="Log each request, who asked and what came of it.")
    auth: ApiAuthSection = ApiAuthSection()
