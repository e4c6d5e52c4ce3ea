"""Description of the API, as an OpenAPI 3.1 document and as a web page, generated from the list of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

import msgspec

from meter.api.request.arguments import Parameter

HTML = "text/html"

API_VERSION = "2"
"""Version of the API. Anyone can read the document, so that the version of Meter is not in it."""

ERRORS = {
    "400": "Invalid request.",
    "401": "Missing or invalid token, or project not permitted.",
    "403": "Not permitted.",
    "404": "Not found.",
    "406": "The Accept header excludes every media type of this resource.",
    "413": "Request body too large.",
    "415": "Unsupported media type of the request body.",
    "421": "The Host header names another host, and this API has no authentication.",
    "429": "Too many requests of the project or the client address in progress, or too many invalid tokens. Retry after the number of seconds in Retry-After.",
    "503": "Temporarily unavailable. Retry after the number of seconds in Retry-After.",
}


def document(operations: Sequence[Any], base_url: str) -> dict[str, Any]:
    """Return the OpenAPI document of ``operations`` (of :mod:`meter.api.operations`), for clients at ``base_url``."""
    return {**_document(tuple(operations)), "servers": [{"url": base_url}]}


@cache
def _document(operations: tuple[Any, ...]) -> dict[str, Any]:
    """Return the document without its servers: anyone can request it, and it takes milliseconds to make."""
    types = [each for one in operations for each in (one.result, one.body, one.failure) if each is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Meter",
            "version": API_VERSION,
            "description": "Usage metering, compatible with the v2 API of Ceilometer.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
    }


_ERROR: Mapping[str, Any] = {
    "type": "object",
    "description": "An error: error_message for invalid requests, error for missing or invalid tokens.",
    "properties": {
        "error_message": {"type": ["object", "string"]},
        "error": {"type": "object"},
    },
}


def _operation(operation: Any, by_type: Mapping[str, Any]) -> dict[str, Any]:
    schema = by_type[str(operation.result)]
    content = {
        media_type: {"schema": schema if media_type == "application/json" else {"type": "string"}}
        for media_type in operation.media_types
    }
    failure = {"$ref": "#/components/schemas/Error"} if operation.failure is None else by_type[str(operation.failure)]
    error = {"content": {"application/json": {"schema": failure}}}
    errors = ERRORS if operation.failure is None else {**ERRORS, "422": "The query cannot be evaluated."}
    description: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *(_path_parameter(name) for name in re.findall(r"{(\w+)}", operation.path)),
            *(each for parameter in operation.parameters for each in _query_parameters(parameter)),
        ],
        "responses": {
            str(operation.status): {"description": operation.summary, "content": content},
            **{status: {"description": text, **error} for status, text in errors.items()},
        },
    }
    if operation.public:
        description["security"] = []
    if operation.body is not None:
        description["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[str(operation.body)]}},
        }
    return description


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "Can contain slashes.",
        "schema": {"type": "string", "minLength": 1},
    }


def _query_parameters(parameter: Parameter) -> Iterable[dict[str, Any]]:
    names = [f"{parameter.name}.{member}" for member in parameter.members] or [parameter.name]
    schema: dict[str, Any] = {"type": parameter.type}
    if parameter.prefix:
        names, schema = [f"{parameter.name}*"], {"type": "string"}
    elif parameter.many or parameter.members:
        schema = {"type": "array", "items": {"type": "string"}}
    for name in names:
        yield {"name": name, "in": "query", "description": parameter.description, "schema": schema}


# --- web page ------------------------------------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Meter API</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 0 }} code {{ font: 0.95em ui-monospace, monospace }}
b {{ color: #0b6 }} p {{ margin: 0.3rem 0 }} td {{ vertical-align: top; padding: 0.1rem 1rem 0.1rem 0 }}
</style>
<h1>Meter API</h1>
<p>Usage metering, compatible with the v2 API of Ceilometer. OpenAPI document: <a href="openapi.json">openapi.json</a>.</p>
{operations}
</html>
"""


@cache
def page(operations: tuple[Any, ...]) -> str:
    """Return the web page of ``operations``; it loads no other files."""
    return _PAGE.format(operations="\n".join(map(_section, operations)))


def _section(operation: Any) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code><td>{escape(each['description'])}"
        for parameter in operation.parameters
        for each in _query_parameters(parameter)
    )
    media_types = ", ".join(f"<code>{escape(media_type)}</code>" for media_type in operation.media_types)
    return (
        f'<h2 id="{escape(operation.name)}"><b>{operation.method}</b> <code>{escape(operation.path)}</code></h2>'
        f"<p>{escape(operation.summary)} Response {operation.status}: {media_types}.</p><table>{rows}</table>"
    )
