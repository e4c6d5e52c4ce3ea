"""Property tests: every page and every form answers any input in HTML or with a redirect of its own, never with an error of the server."""

from __future__ import annotations

import re
from urllib.parse import quote
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.api.operation import Operation
from meter.api.web.pages import PAGES
from tests.api_client import ApiClient
from tests.api_client import Response

HTML_PAGES = [each for each in PAGES if not each.form and each.media_types == ("text/html",)]
FORMS = [each for each in PAGES if each.form]
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["2026-11-22", "7d", "0", "-1", "1e999", "9" * 30, "cpu", "project_id", "<script>"]
)
WITHOUT_NUL = st.characters(codec="utf-8", exclude_characters="\0")
"""In a path, that is refused before a page is chosen, and in JSON."""

API = ApiClient()
ACCEPT = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def is_answer(response: Response) -> bool:
    if response.status == 303:
        return response.headers["location"].startswith("/")
    return (response.status == 200 or 400 <= response.status < 500) and response.headers["content-type"].startswith(
        "text/html"
    )


def names_of(operation: Operation) -> st.SearchStrategy[str]:
    names = [each.name for each in operation.parameters]
    return st.sampled_from(names) | st.text(max_size=5) if names else st.text(max_size=5)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(HTML_PAGES), st.data())
def test_any_address_of_a_page_is_answered(page: Operation, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(names_of(page), TEXTS), max_size=4))
    variable = quote(data.draw(st.text(WITHOUT_NUL, min_size=1, max_size=20)), safe="")
    path = re.sub(r"{\w+}", lambda _: variable, page.path)
    response = API(f"{path}?{urlencode(pairs)}", headers=ACCEPT)
    assert is_answer(response), (response.status, response.body[:300])


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(FORMS), st.data())
def test_any_fields_of_a_form_are_answered(form: Operation, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(names_of(form), TEXTS), max_size=4))
    variable = quote(data.draw(st.text(WITHOUT_NUL, min_size=1, max_size=20)), safe="")
    path = re.sub(r"{\w+}", lambda _: variable, form.path)
    own = {**ACCEPT, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    response = API(path, method="POST", body=urlencode(pairs).encode(), headers=own)
    assert is_answer(response), (response.status, response.body[:300])
