"""A secret that stands where a table or a list of tables belongs is not shown by the error that says so."""

from __future__ import annotations

import pytest

from meter.settings.config_file import parse
from meter.settings.problems import ConfigError

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        '[api.auth]\nmode = "tokens"\ntokens = ["hunter2"]\n',
        '[api.auth]\ntokens = "hunter2"\n',
        '[api.auth]\nkeystone = "hunter2"\n',
        'signing = "hunter2"\n',
        '[signing]\nkeys = "hunter2"\n',
        '[signing]\nkeys = ["hunter2"]\n',
        '[rating]\nwebhooks = ["hunter2"]\n',
        'store = "host=db user=meter pass=hunter2"\n',
    ],
)
def test_text_where_a_table_belongs_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "meter-api")
    assert "should be a" in str(caught.value)
    assert SECRET not in str(caught.value)
