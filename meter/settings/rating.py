"""Settings of rating: price books, statements, budgets and webhooks."""

from __future__ import annotations

from pydantic import Field
from pydantic import SecretStr

from meter.settings.section import Seconds
from meter.settings.section import Section


class RatingWebhookSection(Section):
    """A target of webhooks."""

    name: str = Field(min_length=1, description="Name of the target, as budgets in the price directory use it.")
    url: str = Field(
        description="URL to which webhooks are sent with POST, https:// or http://; redirects are not followed."
    )
    secret: SecretStr = Field(
        default=SecretStr(""),
        description='Key of the signature of the Standard Webhooks convention: "whsec_" and base64.',
    )
    secret_file: str = Field(default="", description="File that contains the secret, instead of secret.")


class RatingSection(Section):
    """Rating: statements from samples, by the price book."""

    price_directory: str = Field(
        default="", description='Directory of the price book\'s files (*.toml). "" switches rating off.'
    )
    signing_key_file: str = Field(
        default="", description="File with the private Ed25519 key that signs statements, made by meter-rate keys."
    )
    interval_seconds: Seconds = Field(
        default=900.0,
        description="How often the collector rates new days, corrects closed periods and compares budgets.",
    )
    correct_periods: int = Field(
        default=2,
        ge=0,
        le=24,
        description="How many closed periods are compared with what arrived later. Later changes of older periods are reported, not billed.",
    )
    webhooks: list[RatingWebhookSection] = Field(
        default_factory=list, description="Targets of webhooks: each has name, url, and secret or secret_file."
    )
