"""The rules of HashMap, read from CloudKitty's API or from a file in which its answers were saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meter.commands.command import CommandError
from meter.commands.importing.import_source import ImportSourceError
from meter.commands.importing.service_access import keystone_access
from meter.commands.importing.service_access import plain_client
from meter.commands.importing.service_client import ServiceClient
from meter.http.client import ErrorResponse
from meter.settings import Config

SERVICE = "rating"
"""The type of CloudKitty in Keystone's catalogue."""

REFUSAL = "CloudKitty does not let this user read the rules; an administrator may"
PATH = ("rating", "module_config", "hashmap")
MAX_FILE_BYTES = 64 * 1024 * 1024


class _NobodyAuthentication:
    """Nobody, at a CloudKitty with ``auth_strategy = noauth``."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def url_and_headers(self) -> tuple[str, Mapping[str, str]]:
        return self._url, {}

    def reject(self) -> bool:
        return False


def read_file(path: Path) -> Any:
    """Return the document in a file; raise :class:`CommandError`."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CommandError(f"{path} has more than {MAX_FILE_BYTES} bytes")
        content = path.read_bytes()
        if not content.strip():
            raise CommandError(f"{path} is empty: it should have what --save has written")
        return json.loads(content, parse_float=str)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not in UTF-8") from error
    except RecursionError as error:
        raise CommandError(f"{path} is not JSON: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise CommandError(f"{path}:{error.lineno} is not JSON: {error.msg}, column {error.colno}") from error
    except ValueError as error:  # a number with too many digits for Python
        raise CommandError(f"{path} is not JSON: a number in it is too long") from error


def cloudkitty_client(reactor: Any, config: Config, *, url: str, authenticate: bool, timeout: float) -> ServiceClient:
    """Return a client of CloudKitty at ``url``, or where the catalogue says if that is ``""``; raise :class:`CommandError`."""
    command = "import-cloudkitty"
    if not authenticate:
        http = plain_client(reactor, config, command=command, timeout_seconds=timeout)
        return ServiceClient(http, _NobodyAuthentication(url), refusal=REFUSAL)
    access = keystone_access(
        reactor, config, command=command, service=SERVICE, url=url, timeout_seconds=timeout, instead="--no-auth"
    )
    return ServiceClient(*access, refusal=REFUSAL)


async def read_api(client: ServiceClient) -> dict[str, Any]:
    """Return the answers of CloudKitty about all services; raise :class:`CommandError`, or ``Unavailable``."""
    try:
        services = await _listed(client, "services")
        groups = await _listed(client, "groups")
        fields = [
            each for service in services for each in await _listed(client, "fields", _owner(service, "service_id"))
        ]
        owners = [_owner(each, "service_id") for each in services] + [_owner(each, "field_id") for each in fields]
        # No release lists thresholds of all services at once, and old ones not mappings either.
        mappings = [each for owner in owners for each in await _listed(client, "mappings", owner)]
        thresholds = [each for owner in owners for each in await _listed(client, "thresholds", owner)]
    except ImportSourceError as error:
        raise CommandError(str(error)) from error
    except ErrorResponse as error:
        raise CommandError(f"CloudKitty does not have these rules: {error}") from error
    return {
        "services": services,
        "groups": groups,
        "fields": fields,
        "mappings": mappings,
        "thresholds": thresholds,
    }


async def _listed(client: ServiceClient, what: str, owner: tuple[str, str] | None = None) -> list[Any]:
    answer = await client.get(*PATH, what, query=[owner] if owner else [])
    found = answer.get(what) if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise CommandError(f"CloudKitty's answer about {what} should have a list {what!r}")
    return found


def _owner(entry: Any, key: str) -> tuple[str, str]:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise CommandError(f"CloudKitty's answer has an entry without {key}")
    return key, value
