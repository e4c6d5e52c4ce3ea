"""The check *secrets*: default and weak secrets, and files with secrets that others may read."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.parse import urlsplit

from meter.bus.amqp.hosts import broker_addresses
from meter.commands.doctor.finding import Finding
from meter.daemon.private_files import open_to_others
from meter.settings import Config
from meter.settings.config_file import has_key
from meter.settings.config_file import keyring
from meter.settings.problems import ConfigError
from meter.store.postgres.dsn import parsed

MIN_KEY_BYTES = 16
"""A shorter signing key is a fault: whoever has one signed message can try all keys without anybody noticing."""

WELL_KNOWN = frozenset(
    [
        "admin",
        "ceilometer",
        "change-me",
        "changeme",
        "default",
        "guest",
        "meter",
        "metering",
        "openstack",
        "pass",
        "password",
        "postgres",
        "rabbit",
        "rabbitmq",
        "secret",
        "test",
        "token",
    ]
)
"""Secrets that everybody tries first; the default of Ceilometer's telemetry_secret is "change this for valid signing"."""

SECRET_FILES = frozenset({"password_file", "token_file", "secret_file", "key_file"})
"""Names of options of plugins that name a file with a secret."""

CEILOMETER_DEFAULTS = frozenset({"change this for valid signing", "change this or be hacked"})

NEW_KEY = "make a new one with openssl rand -hex 32, as a second entry of [[signing.keys]] until all daemons have it (docs/keys)"


def secret_findings(path: str | None, config: Config) -> Iterator[Finding]:
    """Yield what is wrong with the secrets in ``config`` and with their files; one finding *ok* if nothing is."""
    quiet = True
    for finding in (
        *_broker(config),
        *_signing(config),
        *_database(config),
        *_unverified_databases(config),
        *_tokens(config),
        *_files(path, config),
    ):
        quiet = False
        yield finding
    if quiet:
        yield Finding("secrets", "ok", "no default or short secret; files of secrets are closed to other users")


def _fault(text: str, advice: str) -> Finding:
    return Finding("secrets", "fault", text, advice)


def _warning(text: str, advice: str) -> Finding:
    return Finding("secrets", "warning", text, advice)


def _broker(config: Config) -> Iterator[Finding]:
    url = config.bus.url.get_secret_value()
    if url == "local:":
        return
    address = next((each for each in broker_addresses(url) if not is_loopback(each.host)), None)
    if address is None:
        return
    if address.password.lower() in WELL_KNOWN or address.password == address.user:
        yield _fault(
            f"[bus] url: the user {address.user} of the broker {address.host} has a default password: anybody who reaches the"
            " broker can read and forge messages",
            f"rabbitmqctl change_password {address.user}, or a user of its own for Meter, and the new URL in url_file",
        )
    if not address.tls:
        yield _warning(
            f"[bus] url: the password of the broker and all samples go to {address.host} without encryption",
            "use amqps:// (docs/security)",
        )


def _signing(config: Config) -> Iterator[Finding]:
    try:
        keys = keyring(config, make=False).keys if has_key(config) else ()
    except (OSError, ConfigError) as error:
        yield Finding("secrets", "not checked", f"[signing] {error}", "run it as the user of the daemons")
    else:
        for key in keys:
            text = key.secret.decode("utf-8", "replace")
            if text.lower() in WELL_KNOWN or text in CEILOMETER_DEFAULTS:
                yield _fault(f"[signing] the key {key.id} is a well-known word: anybody can forge samples", NEW_KEY)
            elif len(key.secret) < MIN_KEY_BYTES:
                yield _fault(
                    f"[signing] the key {key.id} has {len(key.secret)} bytes: it can be guessed from one signed message",
                    NEW_KEY,
                )
    if config.signing.accept_unsigned:
        yield _warning(
            "[signing] accept_unsigned: whoever can publish to the broker can store samples of any project",
            "set it to false once all sources sign",
        )


def _database(config: Config) -> Iterator[Finding]:
    for name, secret in (("dsn", config.store.dsn), ("replica_dsn", config.store.replica_dsn)):
        try:
            parts = urlsplit(secret.get_secret_value())
            password, user, host = unquote(parts.password or ""), unquote(parts.username or ""), parts.hostname or ""
        except ValueError:
            continue
        if password and (password.lower() in WELL_KNOWN or password == user) and not is_loopback(host):
            yield _fault(
                f"[store] {name}: the user {user} of the database at {host} has a default password",
                f"ALTER USER {user} PASSWORD …, and the new DSN in dsn_file",
            )


def _unverified_databases(config: Config) -> Iterator[Finding]:
    """Yield a warning for each database on another host whose certificate libpq does not verify, as by default."""
    for name, secret in (("dsn", config.store.dsn), ("replica_dsn", config.store.replica_dsn)):
        dsn = secret.get_secret_value()
        try:
            parameters = parsed(dsn) if dsn and not dsn.startswith("embedded:") else {}
        except ValueError:
            continue  # the check of the configuration tells it
        hosts = parameters.get("host") or parameters.get("hostaddr") or ""
        remote = [host for host in hosts.split(",") if not host.startswith(("/", "@")) and not is_loopback(host)]
        mode = parameters.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
        if remote and mode not in ("verify-full", "verify-ca"):
            how = "may be unencrypted" if mode in ("disable", "allow", "prefer") else "are encrypted"
            yield _warning(
                f"[store] {name}: with sslmode={mode} connections to {', '.join(remote)} {how}, and the certificate is not verified:"
                " whoever can pretend to be the database gets the password and all samples",
                "sslmode=verify-full and sslrootcert=FILE in the DSN (docs/tls.rst)",
            )


def _tokens(config: Config) -> Iterator[Finding]:
    known = {sha256(word.encode()).hexdigest(): word for word in sorted(WELL_KNOWN)}
    for number, token in enumerate(config.api.auth.tokens, 1):
        if token.sha256.lower() in known:
            yield _fault(
                f"[[api.auth.tokens]] the token number {number} is a well-known word",
                "replace it by one that meter-token create makes",
            )
    keystone = config.api.auth.keystone
    if config.api.auth.mode == "keystone" and keystone.insecure:
        yield _warning(
            "[api.auth.keystone] insecure: whoever can pretend to be Keystone can give themselves any project",
            "set ca_file, and insecure to false",
        )


def _broker_key(config: Config) -> str:
    url = config.bus.url.get_secret_value()
    broker = None if url == "local:" else broker_addresses(url)[0]
    return (broker and (broker.key_file or broker.certificate_file)) or ""


def _files(path: str | None, config: Config) -> Iterator[Finding]:
    keystone, account = config.api.auth.keystone, config.openstack.auth
    named = {
        "[bus] url_file": config.bus.url_file,
        "[store] dsn_file": config.store.dsn_file,
        "[signing] key_file": config.signing.key_file,
        "[api.auth.keystone] password_file": keystone.password_file,
        "[openstack.auth] password_file": account.password_file,
        "[openstack] clouds_file": config.openstack.clouds_file,
        "[openstack] key_file": config.openstack.key_file,
        "[api.tls] key_file": config.api.tls.key_file or config.api.tls.cert_file,
        "[status.tls] key_file": config.status.tls.key_file or config.status.tls.cert_file,
        "keyfile of [bus] url": _broker_key(config),
        "[openstack.auth] token_file": account.token_file,
        "[openstack.auth] application_credential_secret_file": account.application_credential_secret_file,
        **{f"[[signing.keys]] {each.id}": each.key_file for each in config.signing.keys},
        **{f"[[rating.webhooks]] {each.name}": each.secret_file for each in config.rating.webhooks},
        "the generated signing key": str(config.signing_key_file),
        **dict(_plugin_files("pollsters", config.pollsters)),
        **dict(_plugin_files("listeners", config.listeners)),
    }
    if path is not None and _has_secrets(config):
        named["the configuration file, which has secrets,"] = path
    for setting, file in named.items():
        if file and (mode := _mode(Path(file))) is not None and mode & 0o007:
            yield _fault(
                f"{setting}: {file} has mode {mode:04o}: every user of this host can read the secret",
                f"chmod 0640 {file} (or 0600), and use a new secret",
            )
    if warning := open_to_others(Path(config.meter.state_dir)):
        yield _warning(f"[meter] state_dir: {warning}", f"chmod 0700 {config.meter.state_dir}")


def _plugin_files(place: str, options: Any) -> Iterator[tuple[str, str]]:
    """Yield the files with secrets in the options of plugins, which are not known here: those whose names say so."""
    if isinstance(options, Mapping):
        for name, value in options.items():
            if name in SECRET_FILES and isinstance(value, str):
                yield f"[{place}] {name}", value
            else:
                yield from _plugin_files(f"{place}.{name}", value)
    elif isinstance(options, Sequence) and not isinstance(options, str):
        for number, each in enumerate(options, 1):
            yield from _plugin_files(f"{place}.{number}", each)


def _has_secrets(config: Config) -> bool:
    """Return whether secrets are written in the configuration file itself, as far as that can be told."""
    signing = config.signing
    url, dsn = config.bus.url.get_secret_value(), config.store.dsn.get_secret_value()
    return (
        (signing.key is not None and not signing.key_file)
        or any(each.key is not None and not each.key_file for each in signing.keys)
        or any(not each.secret_file for each in config.rating.webhooks)
        or (
            "url" in config.bus.model_fields_set
            and not config.bus.url_file
            and "guest:guest@" not in url
            and "@" in url
        )
        or (not config.store.dsn_file and ("password" in dsn or bool(_password(dsn))))
    )


def _password(dsn: str) -> str:
    try:
        return urlsplit(dsn).password or ""
    except ValueError:
        return ""


def _mode(file: Path) -> int | None:
    try:
        return stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this host, as far as its text tells; so is the empty text, which stands for a socket."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost", "localhost.localdomain")
