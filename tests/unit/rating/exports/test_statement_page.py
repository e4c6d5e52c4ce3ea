"""A statement as a page: complete, harmless, and readable with names of any length and alphabet."""

from __future__ import annotations

import html
import re
from decimal import Decimal

import msgspec

from meter.rating.exports.statement_page import line_groups
from meter.rating.exports.statement_page import statement_page
from meter.rating.statements.statement import SignedStatement
from tests.statement_documents import FORMULA
from tests.statement_documents import HEBREW
from tests.statement_documents import KEY_ID
from tests.statement_documents import LINES
from tests.statement_documents import line
from tests.statement_documents import signed
from tests.statement_documents import statement


def page(document: SignedStatement | None = None, sha256: str = "") -> str:
    return "".join(statement_page(document or signed(), sha256))


def test_every_line_is_on_the_page_once() -> None:
    text = page()
    for each in LINES:
        assert text.count(f">{html.escape(each.description)}</span>") == 1


def test_lines_are_grouped_by_project_with_those_of_the_account_at_the_end() -> None:
    groups = line_groups(statement())
    assert [(each.project_id, each.project_name) for each in groups] == [("shop", HEBREW), ("lab", FORMULA), ("", "")]
    assert [each.amount for each in groups] == [Decimal("13.37"), Decimal("15.04"), Decimal("16.55")]
    assert sum(each.amount for each in groups) == statement().net


def test_totals_completeness_gaps_and_what_is_not_billed_are_told() -> None:
    text = page(sha256="c" * 64)
    for expected in ("44.96", "53.95", "99.88 %", "known outage of 3 November", "agent was down on host c3", "gpu"):
        assert expected in text
    assert "1 h 00 min 00 s" in text
    for expected in (KEY_ID, html.escape(signed().signature), statement().annex_sha256, "c" * 64, "meter-rate verify"):
        assert expected in text


def test_names_are_escaped() -> None:
    text = page()
    assert "<b>Ltd</b>" not in text
    assert "Acme &lt;b&gt;Ltd&lt;/b&gt;" in text


def test_a_page_has_no_scripts_and_loads_nothing() -> None:
    nasty = "<script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"
    document = statement(lines=(msgspec.structs.replace(LINES[0], description=nasty, project_name=nasty),))
    text = page(signed(document))
    assert "{{ 7 * 7 }}" in html.unescape(text)
    assert not re.search(r"<(?:script|link|iframe|img|object)|@import|url\(|\ssrc=|\shref=|\son\w+=", html_tags(text))


def html_tags(text: str) -> str:
    return "".join(re.findall(r"<[^>]*>", text))


def test_every_name_chooses_its_own_direction() -> None:
    assert f"<bdi>{HEBREW}</bdi>" in page()


def test_an_open_statement_is_called_a_preview_and_has_no_signature() -> None:
    text = page(SignedStatement(statement=statement(state="open", closed_at=None), key_id="", signature=""))
    assert "Preview of a statement" in text
    assert "How to verify" not in text


def test_a_statement_without_lines_says_so() -> None:
    assert "There was nothing to bill." in page(signed(statement(lines=())))


def test_a_page_with_many_lines_is_made_in_pieces() -> None:
    document = statement(
        lines=tuple(
            line(n, "usage", "k", list_amount=Decimal(0), exact_amount=Decimal(0), amount=Decimal(0))
            for n in range(1, 301)
        )
    )
    assert max(map(len, statement_page(signed(document)))) < 5_000


def test_invisible_characters_of_ids_are_shown_and_those_of_names_stay() -> None:
    persian = "می\u200cخواهم"
    odd = msgspec.structs.replace(LINES[0], project_id="shop\u200b", project_name=persian, resource_id="vm\u2060")
    text = page(signed(statement(lines=(odd,))))
    assert f"<bdi>{persian}</bdi> <code>shop\\u200b</code>" in text
    assert "<bdi>vm\\u2060</bdi>" in text
