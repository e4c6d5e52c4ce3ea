"""Settings of rating: price books, statements, budgets and webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from pydantic import Field
from pydantic import SecretStr

from meter.rating.budgets.webhook_signature import webhook_keys
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
        description='Key of the signature of the Standard Webhooks convention: "whsec_" and the base64 of 24 to 64 random bytes. Two keys, with a space between them, sign both while the receiver changes to the new one.',
    )
    secret_file: str = Field(default="", description="File that contains the secret, instead of secret.")
    ca_file: str = Field(
        default="", description="CA certificates (PEM file) that replace the system's for this target."
    )


class RatingSection(Section):
    """Rating: statements from samples, by the price book."""

    price_directory: str = Field(
        default="", description='Directory of the price book\'s files (*.toml). "" switches rating off.'
    )
    signing_key_file: str = Field(
        default="", description="File with the private Ed25519 key that signs statements, made by meter-rate keys."
    )
    public_keys_directory: str = Field(
        default="",
        description='Directory with the public keys of all times, by which statements are verified. By default it is "statement-keys" beside signing_key_file.',
    )
    interval_seconds: Seconds = Field(
        default=900.0,
        le=3600,
        description="How often the collector rates new days and compares budgets; corrections of closed periods are counted hourly.",
    )
    correct_periods: int = Field(
        default=2,
        ge=0,
        le=24,
        description="How many closed periods are compared with what arrived later. Later changes of older periods are not looked at, and never billed.",
    )
    webhooks: list[RatingWebhookSection] = Field(
        default_factory=list,
        description="Targets of webhooks: each has name, url, and secret or secret_file, and may have ca_file.",
    )


def webhook_problems(rating: RatingSection) -> Iterator[str]:
    """Yield a text for each error in the targets of webhooks. No text has a secret in it."""
    names = [target.name for target in rating.webhooks]
    if len(set(names)) < len(names):
        yield "[rating] webhooks: two targets have the same name"
    for number, target in enumerate(rating.webhooks, 1):
        where = f"[rating.webhooks.{number}]"
        try:
            webhook_keys(target.secret.get_secret_value())
        except ValueError as error:
            yield f"{where} secret: {error}"
        if not is_webhook_url(target.url):
            yield f"{where} url: should be an https:// or http:// URL with a host, without a user name and password"


def is_webhook_url(url: str) -> bool:
    """Return whether webhooks can be sent to ``url``."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_text = url.isascii() and url.isprintable() and " " not in url
    has_host = bool(parts.hostname) and "@" not in parts.netloc and port != 0
    return is_text and has_host and parts.scheme in ("http", "https")
