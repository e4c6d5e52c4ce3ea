"""Reads files of captured notifications: JSON with one notification, an array of them, or one per line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meter.commands.command import CommandError
from meter.interfaces import Publication
from meter.message import seal

MAX_FILE_BYTES = 64 * 1024 * 1024


def read_captured(name: str) -> Iterator[Publication]:
    """Yield the notifications in the file ``name`` as publications; exchange and routing key are empty if not in the file."""
    try:
        if name == "-":
            text = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise CommandError(f"{name}: the file is larger than {MAX_FILE_BYTES} bytes")
    except OSError as error:
        raise CommandError(f"{name}: cannot be read: {error}") from error
    for each in _contents(name, text):
        if not isinstance(each, dict):
            raise CommandError(f"{name}: a notification must be a JSON object, not a {type(each).__name__}")
        message = each.get("message", each)
        if not isinstance(message, dict):
            raise CommandError(f"{name}: message must be a JSON object, not a {type(message).__name__}")
        enveloped = "oslo.version" in message and "oslo.message" in message
        yield Publication(
            exchange=str(each.get("exchange") or ""),
            routing_key=str(each.get("routing_key") or ""),
            body=json.dumps(message).encode() if enveloped else seal(message),
        )


def _contents(name: str, text: bytes) -> Iterator[Any]:
    """Yield the notifications in ``text``: a JSON object, a JSON array of them, or JSON lines, one object on each."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2 or not _is_json(lines[0][1]):
            raise CommandError(f"{name}: not JSON: {error}") from error
    else:
        yield from content if isinstance(content, list) else [content]
        return
    for number, line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CommandError(
                f"{name}:{number}: not JSON: {error}; each line must contain one notification"
            ) from error


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
