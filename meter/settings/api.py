"""Settings of the HTTP API and its authentication."""

from __future__ import annotations

from typing import Annotated
from typing import Literal

from pydantic import Field
from pydantic import SecretStr

from meter.settings.prometheus import ApiPrometheusSection
from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section
from meter.settings.section import matching
from meter.settings.tls import ServerTlsSection

AdminScope = Literal["project", "domain", "system"]
HostName = Annotated[
    str,
    matching(
        r"[A-Za-z0-9._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*", "the name or address of a host, without a port"
    ),
]
"""A name or an address, without a port."""


class ApiTokenSection(Section):
    """One static token of the API."""

    sha256: Annotated[str, matching("[0-9a-f]{64}", "64 hexadecimal digits, the output of sha256sum")] = Field(
        description="SHA-256 of the token in hexadecimal: printf %s TOKEN | sha256sum"
    )
    admin: bool = Field(default=False, description="Whether the token gives access to the samples of all projects.")
    project_id: str | None = Field(
        default=None, description="Project whose samples the token gives access to, unless admin is true."
    )
    user_id: str | None = Field(default=None, description="Name of the client in the access log.")


class ApiKeystoneSection(Section):
    """How the API validates the tokens of its clients with Keystone."""

    auth_url: str = Field(default="", description="URL of Keystone: https://keystone.example.org/v3")
    www_authenticate_uri: Annotated[str, matching(r"[!#-~]*", "a URL without spaces and quotation marks")] = Field(
        default="",
        description="Public URL of Keystone, which is in the header WWW-Authenticate of a response 401. By default the header contains no URL.",
    )
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
        description="Roles that give access to the samples of all projects, in a token with one of admin_scopes.",
    )
    admin_scopes: list[AdminScope] = Field(
        default_factory=lambda: list[AdminScope](("project", "system")),
        description='Scopes of a token in which admin_roles count. "domain" makes administrators of any domain administrators of Meter; ["system"] admits no administrator of projects.',
    )
    admin_projects: list[str] = Field(
        default_factory=list,
        description="Ids of the projects in which admin_roles count; [] for every project. Name them if customers have such a role in their own projects.",
    )
    revalidate_seconds: Seconds = Field(
        default=60.0,
        description="How long a validated token is cached. New requests with a revoked token are accepted for this long at most.",
    )
    cached_tokens: Count = Field(default=10_000, description="Maximum number of tokens in the cache.")
    refused_seconds: Seconds = Field(
        default=30.0, description="How long a token that Keystone refused is refused without asking again."
    )
    max_refused_tokens: Count = Field(
        default=10_000, description="Maximum number of refused tokens that are remembered, in a cache of their own."
    )
    max_validations: Count = Field(
        default=100,
        description="Maximum number of requests that wait for Keystone. Client addresses without a valid token in the last hour can have half of them together.",
    )
    max_validations_per_address: Count = Field(
        default=25, description="Maximum number of requests from one client address that wait for Keystone."
    )
    max_refusals: Count = Field(
        default=20,
        description="How many tokens of one client address Keystone may refuse in a burst, and in each 20 seconds after it: by default a burst of 20, then one a second. Further new tokens are answered 429. All addresses without a valid token in the last hour have 20 times as many together.",
    )


class ApiAuthSection(Section):
    """Authentication of API clients."""

    mode: Literal["none", "tokens", "keystone"] = Field(
        default="none",
        description="none: every client sees everything, so only loopback addresses are allowed in listen. tokens: clients send a token made by meter-token, or one of the tokens below, as X-Auth-Token. keystone: clients send a Keystone token.",
    )
    tokens: list[ApiTokenSection] = Field(
        default_factory=list,
        description="[[api.auth.tokens]]: sha256, and admin or project_id. They are read at start; meter-token makes tokens that need no restart.",
    )
    max_unchecked_seconds: Seconds = Field(
        default=300.0,
        description="How long an export or live stream goes on while Keystone cannot be asked about its token again, and how long the tokens of meter-token are accepted while the database is unavailable. A token never outlives its expiry.",
    )
    refresh_seconds: Seconds = Field(
        default=5.0,
        description="tokens: how often the tokens of meter-token are read from the database. While the database is available, a revoked token is accepted for this long at most; usually a notification ends it at once.",
    )
    keystone: ApiKeystoneSection = ApiKeystoneSection()


class ApiPostedSamplesSection(Section):
    """What clients may submit if accept_samples is true."""

    tenant_meters: list[str] = Field(
        default_factory=lambda: ["custom.*"],
        description="Shell patterns of the meters that tenants, clients without admin access, may submit, in which {project_id} stands for their project. A meter of any plugin, or of which others have samples, is refused nevertheless.",
    )
    signed_meters: list[str] = Field(
        default_factory=list,
        description="Shell patterns of the meters whose volumes may be negative if a tenant submits them.",
    )
    max_age_seconds: Seconds = Field(
        default=604_800.0, description="How far back the timestamp of a submitted sample may be."
    )
    max_admin_age_seconds: Seconds = Field(
        default=34_560_000.0,
        description="How far back the timestamp of a sample that an administrator submits may be; longer, for the import of older samples.",
    )
    max_ahead_seconds: Seconds = Field(
        default=300.0, description="How far ahead of the clock of meter-api the timestamp of a submitted sample may be."
    )


class ApiSharesSection(Section):
    """What one project, and one client address, may use of the API at the same time."""

    max_requests_per_project: Count = Field(
        default=25, description="Maximum number of requests of one project in progress; further ones are answered 429."
    )
    max_costly_per_project: Count = Field(
        default=10,
        description="Maximum number of costly requests among them: exports, statistics, complex queries, segments, completeness, statements, costs, submissions of samples, the v1 API.",
    )
    max_live_per_project: Count = Field(
        default=10, description="Maximum number of clients of /v2/live of one project at the same time."
    )
    max_requests_per_address: Count = Field(
        default=50,
        description="Maximum number of requests of one client address in progress. Behind a proxy, set trusted_proxies too.",
    )
    max_live_per_address: Count = Field(
        default=25, description="Maximum number of clients of /v2/live of one client address at the same time."
    )
    reserved_requests: Count = Field(
        default=10,
        description="Number of the max_requests that only administrators can use. The same number of max_live, but at most a fifth, is reserved too.",
    )
    max_readers_per_project: Count = Field(
        default=2,
        description="Number of the [store] readers that one project can use at the same time; costly requests use half of them.",
    )
    reserved_readers: Count = Field(
        default=1,
        description="Number of the [store] readers that only queries of administrators can use. [store] readers should have two more, so that a costly query leaves one to others.",
    )


class ApiSection(Section):
    """The HTTP API."""

    listen: str = Field(
        default="tcp:8777:interface=127.0.0.1", description="Twisted endpoint description of the address to listen on."
    )
    base_url: Annotated[
        str,
        matching(
            r"(https?://[A-Za-z0-9._\[\]:-]+(/[!-;=?-~]*)?)?",
            "an http:// or https:// URL like https://metering.example.org",
        ),
    ] = Field(
        default="",
        description="URL under which clients reach the API, used for links in responses: https://metering.example.org. By default links follow the Host header if host_names has its name, and are relative otherwise.",
    )
    host_names: list[HostName] = Field(
        default_factory=list,
        description='Names of this API in the Host header, besides the name and the addresses of this host: ["metering.example.org"]. With auth mode none, requests for other names are refused.',
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
    max_connections: Count = Field(
        default=800,
        description="Maximum number of open connections of all clients together, those of trusted_proxies included; further ones are closed at once. A process that is limited to 1024 open files needs the rest for others.",
    )
    max_connections_per_address: Count = Field(
        default=100,
        description="Maximum number of open connections of one client address; further ones are closed at once. Connections of trusted_proxies are not counted.",
    )
    max_head_seconds: Seconds = Field(
        default=30.0, description="How long the request line and the headers of a request may take to arrive."
    )
    max_body_seconds: Seconds = Field(default=60.0, description="How long the body of a request may take to arrive.")
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description='Addresses and networks of proxies whose X-Forwarded-For header names the client address: ["192.0.2.10", "2001:db8::/64"], or ["unix"] for a UNIX socket.',
    )
    min_bytes_per_second: Count = Field(
        default=16 * 1024,
        description="Least rate at which a client has to read a long response; the connection of a slower one is closed.",
    )
    max_stall_seconds: Seconds = Field(
        default=60.0, description="How long a client may read nothing, or less than that rate, before it is too slow."
    )
    max_export_seconds: Seconds = Field(
        default=3600.0, description="How long an export, or another long response, may take in total."
    )
    accept_samples: bool = Field(
        default=False,
        description="Accept samples that clients submit, sign them and publish them on the bus. meter-api needs the bus for this only.",
    )
    posted_samples: ApiPostedSamplesSection = ApiPostedSamplesSection()
    cors_origins: list[str] = Field(
        default_factory=list,
        description='Origins of web pages that may call the API: ["https://dashboard.example.org"], or ["*"] for all.',
    )
    access_log: bool = Field(default=False, description="Log each request with its client and its status.")
    shares: ApiSharesSection = ApiSharesSection()
    prometheus: ApiPrometheusSection = ApiPrometheusSection()
    tls: ServerTlsSection = ServerTlsSection()
    auth: ApiAuthSection = ApiAuthSection()
