"""Statements that carry a variant for a spread store: the connection takes one, with the parameters that it has."""

from __future__ import annotations

import pytest

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import chosen
from meter.store.postgres.sql import filled

HERE = Sql("SELECT a FROM sample s WHERE s.id = %s", (1,))
THERE = Sql("SELECT a FROM found(%s, %s, 'x%%y') s", (2, 3))
BOTH = filled(
    "WITH w AS ({first}) SELECT * FROM w WHERE a = {value} UNION ALL {second}",
    first=alternative(HERE, THERE),
    value=Sql("%s", (4,)),
    second=alternative(THERE, HERE),
)


def test_each_kind_of_store_has_its_variant_with_its_parameters_in_order():
    assert chosen(BOTH.text, BOTH.parameters, spread=False) == (
        f"WITH w AS ({HERE}) SELECT * FROM w WHERE a = %s UNION ALL {THERE}",
        [1, 4, 2, 3],
    )
    assert chosen(BOTH.text, BOTH.parameters, spread=True) == (
        f"WITH w AS ({THERE}) SELECT * FROM w WHERE a = %s UNION ALL {HERE}",
        [2, 3, 4, 1],
    )


def test_named_parameters_stay_as_they_are():
    text = alternative("SELECT %(a)s", "SELECT %(b)s").text
    assert chosen(text, {"a": 1, "b": 2}, spread=True) == ("SELECT %(b)s", {"a": 1, "b": 2})
    assert chosen(text, None, spread=False) == ("SELECT %(a)s", None)


def test_statement_without_variants_is_passed_on():
    parameters = [1]
    assert chosen("SELECT %s", parameters, spread=True) == ("SELECT %s", parameters)
    assert chosen("SELECT %s", parameters, spread=True)[1] is parameters


@pytest.mark.parametrize("part", [alternative("a", "b"), "count(*) */"])
def test_alternatives_within_alternatives_are_refused(part):
    with pytest.raises(ValueError, match="within"):
        alternative("a", part)


def test_text_is_a_statement_for_one_server_as_it_is():
    assert alternative("SELECT 1", "SELECT 2").text == "/*one server:*/SELECT 1/*spread: SELECT 2 */"
