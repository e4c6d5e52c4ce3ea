"""The settings of the central agent: which cloud it asks, within which budget, and with whom it shares the work."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic import SecretStr

from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section


class CentralSection(Section):
    """The central agent."""

    turn: str = Field(
        default="central",
        pattern="^[A-Za-z0-9._-]{0,100}$",
        description='Agents with the same word here, and the same broker, take turns: one measures, the others stand by. "" for an agent that always measures.',
    )
    timeout_seconds: Seconds = Field(
        default=300.0, description="A pollster of the central agent that takes longer is given up for this cycle."
    )
    pollsters_dir: str = Field(
        default="/etc/meter/pollsters.d",
        description="Declarative REST pollsters: *.toml as docs/rest-pollsters.rst describes, and Ceilometer's own *.yaml.",
    )


class OpenStackAuthSection(Section):
    """Who Meter is to Keystone, in the words of clouds.yaml."""

    auth_url: str = Field(default="", description="Keystone: https://keystone.example.org:5000")
    username: str = Field(default="", description="A user who may list what belongs to all projects.")
    user_id: str = Field(default="", description="The same by id.")
    user_domain_name: str = Field(default="", description="The user's domain, the default one where nothing is said.")
    user_domain_id: str = Field(default="", description="The user's domain by id.")
    password: SecretStr = Field(default=SecretStr(""), description="The user's password.")
    password_file: str = Field(default="", description="A file that holds the password.")
    application_credential_id: str = Field(default="", description="An application credential, instead of a user.")
    application_credential_name: str = Field(default="", description="The same by name, with the user.")
    application_credential_secret: SecretStr = Field(default=SecretStr(""), description="Its secret.")
    application_credential_secret_file: str = Field(default="", description="A file that holds the secret.")
    token: SecretStr = Field(default=SecretStr(""), description="A token to get our own with.")
    token_file: str = Field(default="", description="A file that holds the token.")
    project_name: str = Field(default="", description="The scope: a project,")
    project_id: str = Field(default="", description="by its id,")
    project_domain_name: str = Field(default="", description="in this domain;")
    project_domain_id: str = Field(default="", description="by its id;")
    domain_name: str = Field(default="", description="or a domain,")
    domain_id: str = Field(default="", description="by its id,")
    system_scope: Literal["", "all"] = Field(default="", description='or the system, "all".')


class BudgetSection(Section):
    """What one service may be asked."""

    requests_per_second: Seconds = Field(default=20.0, description="Requests a second, at most.")
    in_flight: Count = Field(default=4, description="Requests without an answer, at most.")
    timeout_seconds: Seconds = Field(default=30.0, description="A request that takes longer has failed.")
    attempts: Count = Field(default=3, description="How often a request is sent that fails on the service's side.")
    breaker_failures: Count = Field(default=5, description="After so many failures in a row the service is left alone")
    breaker_seconds: Seconds = Field(default=60.0, description="for so long, then it is asked once.")
    longest_pause_seconds: Seconds = Field(
        default=30.0,
        description="A request waits so long for a service that says Retry-After; for a longer pause it is left alone.",
    )


class OpenStackSection(Section):
    """The cloud whose services are asked. Without any of it, OS_CLOUD and the other OS_ variables say which."""

    cloud: str = Field(default="", description="The name of a cloud in clouds.yaml, instead of [openstack.auth].")
    clouds_file: str = Field(
        default="", description="Where clouds.yaml is; by default where the clients of OpenStack look for it."
    )
    region: str = Field(default="", description="The region whose endpoints are asked.")
    interface: Literal["", "public", "internal", "admin"] = Field(
        default="", description="Which of a service's endpoints: public, where clouds.yaml does not say otherwise."
    )
    ca_file: str = Field(default="", description="Authorities that sign the services' certificates, PEM.")
    cert_file: str = Field(default="", description="Our own certificate, PEM.")
    key_file: str = Field(default="", description="The private key of our certificate, PEM.")
    insecure: bool = Field(
        default=False, description="Take any certificate: whoever is in between can read the password."
    )
    page_size: Count = Field(default=500, description="Entries on a page of a listing.")
    most_pages: Count = Field(default=2000, description="A listing with more pages is given up.")
    largest_body_bytes: Count = Field(default=64 * 1024 * 1024, description="Larger answers are not read.")
    renew_before_seconds: Seconds = Field(
        default=120.0, description="The token is renewed so long before it ends, or after three quarters of its life."
    )
    auth: OpenStackAuthSection = OpenStackAuthSection()
    budget: BudgetSection = BudgetSection()
    by_service: dict[str, BudgetSection] = Field(
        default_factory=dict,
        description="Budgets of services that differ, by type: { image = { requests_per_second = 5.0 } }.",
    )
