"""The service catalogue of a token."""

from __future__ import annotations

from typing import Any

import pytest

from meter.openstack.catalogue import Catalogue
from meter.openstack.catalogue import versioned


@pytest.mark.parametrize("catalog", [None, 3, [None], [{"type": 1}], [{"type": "image", "endpoints": [{"url": 2}]}]])
def test_malformed_catalogue_is_empty(catalog: Any) -> None:
    assert Catalogue.read(catalog) == Catalogue()


@pytest.mark.parametrize(
    ("url", "version", "whole"),
    [
        ("http://h:9292", "v2", "http://h:9292/v2"),
        ("http://h/image/", "v2", "http://h/image/v2"),
        ("http://h/v2.1", "v2.1", "http://h/v2.1"),
        ("http://h/v3/28d7", "v3", "http://h/v3/28d7"),
        ("http://v3.example", "v3", "http://v3.example/v3"),
    ],
)
def test_version_is_appended_to_a_url_without_one(url: str, version: str, whole: str) -> None:
    assert versioned(url, version) == whole
