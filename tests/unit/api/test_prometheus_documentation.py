"""docs/prometheus.rst has every endpoint and parameter of Prometheus' HTTP API."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.api.operation import Operation
from meter.api.prometheus_operations import PROMETHEUS
from meter.api.prometheus_operations import REFUSED
from tests.api_client import ApiClient

PAGE = (Path(__file__).parents[3] / "docs/prometheus.rst").read_text()


@pytest.mark.parametrize("operation", PROMETHEUS, ids=[operation.name for operation in PROMETHEUS])
def test_every_operation_and_parameter_is_documented(operation: Operation) -> None:
    both = {each.method for each in PROMETHEUS if each.path == operation.path} == {"GET", "POST"}
    line = f"``GET``, ``POST`` ``{operation.path}``" if both else f"``{operation.method} {operation.path}``"
    assert line in PAGE
    for parameter in operation.parameters:
        assert f"``{parameter.name}``" in PAGE


def test_openapi_describes_the_errors_of_prometheus() -> None:
    document = ApiClient()("/openapi.json").json
    responses = document["paths"]["/api/v1/query"]["post"]["responses"]
    schema = responses["422"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/PrometheusErrorBody"}
    assert set(document["components"]["schemas"]["PrometheusErrorBody"]["properties"]) == {
        "status",
        "errorType",
        "error",
    }
    assert "422" not in document["paths"]["/v2/samples"]["get"]["responses"]


def test_refusals_say_what_to_use_instead() -> None:
    assert all(": " in text for text in REFUSED.values())
