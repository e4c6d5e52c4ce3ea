"""The configuration file: one TOML file for all daemons; all errors in it are reported at once.

The sections are in :mod:`meter.settings`. Every secret can also be given as the name of a file that contains it.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError
from twisted.internet.endpoints import serverFromString

from meter.daemon.logs import level_filter
from meter.daemon.private_files import make_private_directory
from meter.daemon.private_files import make_private_file
from meter.daemon.private_files import tighten
from meter.settings import Config
from meter.settings import MeterSection
from meter.settings.masked import known_passwords
from meter.settings.masked import masked
from meter.settings.masked import masked_settings
from meter.settings.plain_words import toml_text
from meter.settings.problems import ConfigError
from meter.settings.problems import placed
from meter.settings.problems import problem_of
from meter.settings.rating import webhook_problems
from meter.settings.tls import tls_problems
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey

DEFAULT_FILE = "/etc/meter/meter.toml"
SINGLE = "meter"
"""Name of the daemon that contains all others."""

DAEMONS = (SINGLE, "meter-compute", "meter-central", "meter-collector", "meter-api")
"""The names of all daemons."""


def load(path: str, daemon: str) -> Config:
    """Return the configuration of ``daemon`` from the file at ``path``. Raises :class:`ConfigError`.

    Files of secrets are read here. Nothing is written, connected to or listened on.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}: line {line} is not in UTF-8: save the file as UTF-8"]) from error
    return parse(text, daemon, path)


def parse(text: str, daemon: str, path: str = "configuration") -> Config:
    """Return the configuration of ``daemon`` from ``text``; ``path`` is its name in errors. Raises :class:`ConfigError`."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError, or a number or a nesting that is too large for Python
        reason = "brackets are nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError([f"{path}: not TOML: {reason}"]) from error
    problems = list(_read_secret_files(raw))
    raw = _with_defaults_of(daemon, raw)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems += map(problem_of, error.errors(include_url=False))
    else:
        problems += list(_contradictions(config, daemon))
        if not problems:
            for location in (config.bus.url, config.store.dsn, config.store.replica_dsn):
                known_passwords.add(location.get_secret_value())
            return config
    raise ConfigError(placed(problems, path, text))


def _with_defaults_of(daemon: str, raw: dict[str, Any]) -> dict[str, Any]:
    """Return ``raw`` with the defaults of ``twistd meter``, which needs no external services, if ``daemon`` is that."""
    if daemon != SINGLE:
        return raw
    state_dir = _table(raw, "meter").get("state_dir", MeterSection().state_dir)
    single = {"bus": {"url": "local:"}, "store": {"dsn": f"embedded:{state_dir}/postgresql"}}
    merged = dict(raw)
    for section, defaults in single.items():
        if isinstance(raw.get(section, {}), dict):
            merged[section] = defaults | raw.get(section, {})
    return merged


def _table(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def _read_secret_files(raw: dict[str, Any]) -> Iterator[str]:
    """Replace ``*_file`` settings by the contents of the files; yield a text for each error."""
    places = [("bus", _table(raw, "bus"), "url"), ("store", _table(raw, "store"), "dsn")]
    places.append(("signing", _table(raw, "signing"), "key"))
    keystone = _table(_table(_table(raw, "api"), "auth"), "keystone")
    places.append(("api.auth.keystone", keystone, "password"))
    account = _table(_table(raw, "openstack"), "auth")
    places += [("openstack.auth", account, secret) for secret in ("password", "application_credential_secret", "token")]
    several = _table(raw, "signing").get("keys")
    if isinstance(several, list):
        places += [("signing.keys", entry, "key") for entry in several if isinstance(entry, dict)]
    targets = _table(raw, "rating").get("webhooks")
    if isinstance(targets, list):
        places += [("rating.webhooks", entry, "secret") for entry in targets if isinstance(entry, dict)]
    for section, table, name in places:
        path = table.get(f"{name}_file")
        if not isinstance(path, str) or not path:
            continue
        if name in table:
            yield f"[{section}] {name}: remove it, as {name}_file is set"
            continue
        try:
            table[name] = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            # Somebody may have written the secret itself.
            yield f"[{section}] {name}_file: cannot be read: {masked_settings(path)}: {error.strerror}"
        except ValueError as error:
            reason = "is not in UTF-8" if isinstance(error, UnicodeDecodeError) else "is not a path of a file"
            yield f"[{section}] {name}_file: {toml_text(masked_settings(path))} {reason}"
        else:
            if not table[name]:
                yield f"[{section}] {name}_file: {path} is empty"


def _contradictions(config: Config, daemon: str) -> Iterator[str]:
    """Yield errors that concern several settings."""
    url = config.bus.url.get_secret_value()
    if url == "local:":
        if daemon != SINGLE:
            yield f'[bus] url: "local:" works inside twistd meter only; {daemon} needs amqp://user:password@host:5672/'
    elif not re.match(r"amqps?://([^/?#]*@)?[^/?#:]", url):
        yield '[bus] url: should be amqp://user:password@host:5672/vhost, amqps://… or "local:"'
    try:
        level_filter(config.meter.log_levels)
    except ValueError as error:
        yield f"[meter] log_levels: {error}"
    dsn = config.store.dsn.get_secret_value()
    if not re.match(r"postgres(ql)?://|embedded:.|\w+ *=", dsn):
        yield '[store] dsn: should be postgresql://user@host/database or "embedded:/some/directory"'
    signing = config.signing
    if signing.key is not None and signing.keys:
        yield "[signing] keys: remove key and key_file when keys are listed"
    if signing.key is not None and not signing.key.get_secret_value():
        yield "[signing] key: must not be empty"
    for number, entry in enumerate(signing.keys, 1):
        if entry.key is None or not entry.key.get_secret_value():
            yield f"[signing.keys.{number}] key: is missing; set key or key_file"
    if signing.keys and not any("meter" in entry.schemes for entry in signing.keys):
        yield '[signing] keys: no key has schemes = ["meter"], so no sample of Meter can be signed'
    elif not signing.keys and "meter" not in signing.schemes:
        yield '[signing] schemes: must include "meter", or no sample of Meter can be signed'
    if len({entry.id for entry in signing.keys}) < len(signing.keys):
        yield "[signing] keys: two keys have the same id"
    listens = [("api", "listen", config.api.listen), ("status", "listen", config.status.listen)]
    listens += [("status.by_daemon", name, text) for name, text in config.status.by_daemon.items()]
    for section in ("status", "manhole"):
        for name in getattr(config, section).by_daemon:
            if name not in DAEMONS:
                close = difflib.get_close_matches(name, DAEMONS, 1)
                known = f"did you mean {close[0]}?" if close else f"known: {', '.join(DAEMONS)}"
                yield f"[{section}.by_daemon] {name}: there is no such daemon; {known}"
    yield from tls_problems("api", config.api.tls, [config.api.listen])
    yield from tls_problems("status", config.status.tls, [config.status.listen, *config.status.by_daemon.values()])
    for section, name, text in listens:
        if text or section == "api":
            yield from (f"[{section}] {name}: {wrong}" for wrong in _endpoint_problems(text))
    auth = config.api.auth
    if auth.mode == "keystone":
        if not auth.keystone.auth_url.startswith(("http://", "https://")):
            yield "[api.auth.keystone] auth_url: should be an http:// or https:// URL of Keystone"
        if auth.keystone.password is None or not auth.keystone.password.get_secret_value():
            yield "[api.auth.keystone] password: is missing; set password or password_file"
    if auth.mode == "tokens" and auth.refresh_seconds >= auth.max_unchecked_seconds:
        yield "[api.auth] refresh_seconds: must be less than max_unchecked_seconds"
    for number, token in enumerate(auth.tokens, 1):
        if token.admin == (token.project_id is not None):
            yield f"[api.auth.tokens.{number}]: needs either admin = true or a project_id"
    yield from webhook_problems(config.rating)
    if auth.mode == "none" and not is_local(config.api.listen):
        yield '[api] listen: with [api.auth] mode = "none" only a loopback interface or a UNIX socket is allowed'


def _endpoint_problems(text: str) -> Iterator[str]:
    try:
        serverFromString(object(), text)
    except Exception as error:
        # Endpoint parsers are plugins and raise whatever their parts raise.
        unknown = str(error).startswith("Unknown endpoint type")
        reason = f": there is no type {text.partition(':')[0]}" if unknown and ":" in text else ""
        yield f"{toml_text(text)} is not an endpoint like tcp:8777:interface=127.0.0.1{reason}"


def is_local(listen: str) -> bool:
    """Return whether only this host can connect to the endpoint description ``listen``."""
    if listen.startswith("unix:"):
        return True
    interface = re.search(r":interface=((?:\\.|[^:])*)", listen)
    try:
        return interface is not None and ipaddress.ip_address(interface[1].replace("\\:", ":")).is_loopback
    except ValueError:
        return interface is not None and interface[1] == "localhost"


def has_key(config: Config) -> bool:
    """Return whether a signing key is configured, or has been generated in ``state_dir``."""
    return bool(config.signing.keys) or config.signing.key is not None or config.signing_key_file.exists()


def keyring(config: Config, *, make: bool = True) -> Keyring:
    """Return the signing keys. If none is configured, it is the one in ``state_dir``, which is generated if it is missing.

    Without ``make`` a missing key is generated and not written. Raises :class:`ConfigError` for a key that cannot be read.
    """
    signing = config.signing
    if signing.keys:
        keys = [
            SigningKey(
                entry.id,
                entry.key.get_secret_value().encode(),
                _utc(entry.not_before),
                _utc(entry.not_after),
                tuple(entry.schemes),
                tuple(entry.meters),
                tuple(entry.sources),
                tuple(entry.agents),
            )
            for entry in signing.keys
            if entry.key is not None
        ]
    elif signing.key is not None:
        keys = [SigningKey("default", signing.key.get_secret_value().encode(), schemes=tuple(signing.schemes))]
    else:
        secret = _generated_key(config.signing_key_file) if make else _stored_or_new_key(config.signing_key_file)
        keys = [SigningKey("default", secret, schemes=tuple(signing.schemes))]
    return Keyring(keys, accept_unsigned=signing.accept_unsigned, ceilometer_signature=signing.ceilometer_signature)


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _generated_key(path: Path) -> bytes:
    """Return the key in the file at ``path``, which the first of several daemons that start at once creates."""
    make_private_directory(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    make_private_file(temporary)
    with temporary.open("w", encoding="ascii") as file:
        file.write(os.urandom(32).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    tighten(path)
    return _stored_key(path)


def _stored_or_new_key(path: Path) -> bytes:
    try:
        return _stored_key(path)
    except FileNotFoundError:
        return os.urandom(32)


def _stored_key(path: Path) -> bytes:
    """Return the key in the file at ``path``, which must exist.

    Raises :class:`ConfigError` if it cannot be read, or is empty: anybody could sign with the empty key.
    """
    try:
        key = path.read_bytes().strip()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError([f"{path}: the generated signing key cannot be read: {error}"]) from error
    if not key:
        raise ConfigError(
            [f"{path}: the generated signing key is empty; restore the file, or delete it to generate a new key"]
        )
    return key


def effective(config: Config) -> str:
    """Return the effective configuration as TOML with secrets masked, for ``--check`` and the manhole."""
    shown = config.model_dump(mode="json", exclude_none=True)
    shown["bus"]["url"] = masked(config.bus.url.get_secret_value())
    shown["store"]["dsn"] = masked(config.store.dsn.get_secret_value())
    return tomli_w.dumps(masked_settings(shown))
