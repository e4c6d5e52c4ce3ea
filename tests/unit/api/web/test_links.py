"""Links to views."""

from __future__ import annotations

from meter.api.web.links import view_link


def test_parameters_that_are_not_set_are_left_out_and_others_encoded() -> None:
    assert view_link("/resource", id='a/b "c"&d', meter=None, range="") == "/resource?id=a%2Fb+%22c%22%26d"
    assert view_link("/resource", id="") == "/resource"
