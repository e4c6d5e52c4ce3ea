"""The API's description of itself: OpenAPI 3.1, and the same as a page for people, from the operations that are routed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from html import escape
from typing import Any

import msgspec

import meter
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse

HTML = "text/html"
JSON_TYPES = {"text": "string", "integer": "integer", "boolean": "boolean"}
FAULTS = {
    "400": "It cannot be answered as asked.",
    "401": "Nobody knows who asks, or they ask for another project.",
    "403": "It is not for whoever asks.",
    "404": "There is no such thing to be seen.",
    "406": "The Accept header leaves out all that it can be answered in.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "503": "Try again after the seconds in Retry-After.",
}


async def description(question: RequestContext) -> dict[str, Any]:
    """Answer ``/openapi.json``."""
    return document(question.operations(), question.base_url)


async def page(question: RequestContext) -> RawResponse:
    """Answer ``/docs``."""
    return RawResponse(HTML, html(question.operations()).encode())


def document(operations: Sequence[Any], base_url: str) -> dict[str, Any]:
    """Return the OpenAPI document of ``operations`` (of :mod:`meter.api.operations`)."""
    types = [each for operation in operations for each in (operation.result, operation.body) if each is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Meter",
            "version": meter.__version__,
            "description": "Ceilometer's v2 API, answered from Meter's store.",
        },
        "servers": [{"url": base_url}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
    }


_ERROR: Mapping[str, Any] = {
    "type": "object",
    "description": "A fault, an abort, or nobody knows who asks.",
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
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *(_in_path(name) for name in re.findall(r"{(\w+)}", operation.path)),
            *(each for parameter in operation.parameters for each in _in_query(parameter)),
        ],
        "responses": {
            str(operation.status): {"description": operation.summary, "content": content},
            **{status: {"description": text, **error} for status, text in FAULTS.items()},
        },
    }
    if operation.open:
        told["security"] = []
    if operation.body is not None:
        told["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[str(operation.body)]}},
        }
    return told


def _in_path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "It may hold slashes.",
        "schema": {"type": "string", "minLength": 1},
    }


def _in_query(parameter: Parameter) -> Iterable[dict[str, Any]]:
    names = [f"{parameter.name}.{member}" for member in parameter.members] or [parameter.name]
    schema: dict[str, Any] = {"type": JSON_TYPES[parameter.type]}
    if parameter.prefix:
        names, schema = [f"{parameter.name}*"], {"type": "string"}
    elif parameter.many or parameter.members:
        schema = {"type": "array", "items": {"type": "string"}}
    for name in names:
        yield {"name": name, "in": "query", "description": parameter.description, "schema": schema}


# --- for people ----------------------------------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Meter {version}: the API</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 0 }} code {{ font: 0.95em ui-monospace, monospace }}
b {{ color: #0b6 }} p {{ margin: 0.3rem 0 }} td {{ vertical-align: top; padding: 0.1rem 1rem 0.1rem 0 }}
</style>
<h1>Meter {version}</h1>
<p>Ceilometer's API, answered from Meter's store. The same for programs: <a href="openapi.json">openapi.json</a>.</p>
{operations}
</html>
"""


def html(operations: Sequence[Any]) -> str:
    """Return a page that needs nothing from anywhere else."""
    return _PAGE.format(version=escape(meter.__version__), operations="\n".join(map(_section, operations)))


def _section(operation: Any) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(told['name'])}</code><td>{escape(told['description'])}"
        for parameter in operation.parameters
        for told in _in_query(parameter)
    )
    others = ", ".join(f"<code>{escape(each)}</code>" for each in operation.media_types)
    return (
        f'<h2 id="{escape(operation.name)}"><b>{operation.method}</b> <code>{escape(operation.path)}</code></h2>'
        f"<p>{escape(operation.summary)} Answers {operation.status} with {others}.</p><table>{rows}</table>"
    )
