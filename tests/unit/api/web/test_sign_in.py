"""Signing in and out, and switching to another project."""

from __future__ import annotations

import hashlib

import pytest

from meter.api import Requester
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.api.web.session import own_path
from tests.api_client import ApiClient
from tests.sign_in import Browser
from tests.sign_in import keystone_browser
from tests.sign_in import text_of

PASSWORD = {"method": "password", "username": "ann", "password": "right"}


def tokens_browser() -> Browser:
    token = StaticToken(hashlib.sha256(b"a; phrase").hexdigest(), Requester(False, "blue", "billing"))
    return Browser(ApiClient(auth=StaticTokens([token])))


def test_without_authentication_everybody_is_administrator_and_pages_say_so() -> None:
    browser = Browser(ApiClient())
    assert "everyone who reaches this port" in text_of(browser.get("/"))
    assert "everyone who can reach its port is an administrator" in text_of(browser.get("/sign-in?next=/usage"))
    assert b"Sign out" not in browser.get("/").body


def test_browser_without_a_token_is_sent_to_the_sign_in_page_and_back() -> None:
    browser = tokens_browser()
    sent = browser.get("/?a=1")
    assert (sent.status, sent.headers["location"]) == (303, "/sign-in?next=%2F%3Fa%3D1&reason=needed")
    page = browser.get(sent.headers["location"])
    assert 'name="next" value="/?a=1"' in page.body.decode()
    assert "Sign in to see this page." in text_of(page)
    back = browser.send("/sign-in", method="token", token="a; phrase", next="/?a=1")
    assert (back.status, back.headers["location"]) == (303, "/?a=1")
    seen = text_of(browser.get("/"))
    assert "billing in blue" in seen
    assert "administrator" not in seen
    assert browser.api("/v2/samples", headers={"Cookie": f"meter_token={browser.cookies['meter_token']}"}).status == 200


def test_wrong_token_is_told_and_not_echoed() -> None:
    browser = tokens_browser()
    page = browser.send("/sign-in", method="token", token="wrong-one", next="/usage")
    assert page.status == 401
    assert page.headers["www-authenticate"] == 'Form realm="meter"'
    assert "The token is not valid" in text_of(page)
    assert b"wrong-one" not in page.body
    assert not browser.cookies


def test_a_token_of_the_configuration_cannot_be_typed_as_a_password() -> None:
    assert tokens_browser().send("/sign-in", **PASSWORD).status == 400


def test_sign_out_ends_the_session_and_keeps_a_token_that_was_brought() -> None:
    browser, keystone = keystone_browser()
    token = keystone.issue("blue")
    browser.send("/sign-in", method="token", token=token)
    assert browser.get("/").status == 200
    out = browser.send("/sign-out")
    assert (out.status, out.headers["location"]) == (303, "/sign-in?reason=kept")
    assert not browser.cookies
    assert not keystone.revoked
    assert "stays valid" in text_of(browser.get(out.headers["location"]))
    assert browser.api("/v2/samples", headers={"X-Auth-Token": token}).status == 200


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        (
            {**PASSWORD, "project": "blue"},
            {"username": "ann", "user_domain_name": "Default", "password": "right", "project_name": "blue"},
        ),
        (
            {**PASSWORD, "user_domain": "people", "project": "blue", "project_domain": "things"},
            {"user_domain_name": "people", "project_name": "blue", "project_domain_name": "things"},
        ),
        (
            {"method": "application_credential", "credential": "id-1", "secret": "right"},
            {"application_credential_id": "id-1", "application_credential_secret": "right", "username": ""},
        ),
        (
            {"method": "application_credential", "credential": "bill", "secret": "right", "username": "ann"},
            {"application_credential_name": "bill", "username": "ann", "user_domain_name": "Default"},
        ),
    ],
)
def test_credentials_become_a_session_whose_token_sign_out_revokes(
    fields: dict[str, str], sent: dict[str, str]
) -> None:
    browser, keystone = keystone_browser()
    assert browser.send("/sign-in", next="/?a=1", **fields).headers["location"] == "/?a=1"
    assert {name: getattr(keystone.asked[0], name) for name in sent} == sent
    page = text_of(browser.get("/"))
    assert "ann in The blue project" in page
    assert "until 2026-11-22 13:10:00 UTC" in page
    token = browser.cookies["meter_token"]
    assert browser.send("/sign-out").headers["location"] == "/sign-in?reason=revoked"
    assert keystone.revoked == [token]
    assert browser.api("/v2/samples", headers={"X-Auth-Token": token}).status == 401


def test_a_password_is_sent_as_it_was_typed() -> None:
    browser, keystone = keystone_browser()
    browser.send("/sign-in", method="password", username=" ann ", password=" ünïcode+& ")
    assert (keystone.asked[0].username, keystone.asked[0].password) == ("ann", " ünïcode+& ")


def test_wrong_password_is_one_sentence_and_keeps_what_is_no_secret() -> None:
    browser, _ = keystone_browser()
    page = browser.send("/sign-in", method="password", username='"><img>', password="hunter2", project="blue")
    assert page.status == 401
    assert "The sign-in was refused" in text_of(page)
    assert b"hunter2" not in page.body
    assert b'value="&#34;&gt;&lt;img&gt;"' in page.body
    assert not browser.cookies


@pytest.mark.parametrize(
    ("state", "status", "text"),
    [
        ({"away": True}, 503, "Keystone does not answer"),
        ({"second_factor": True}, 401, "openstack token issue"),
    ],
)
def test_keystone_that_issues_no_token_is_told_in_words(state: dict[str, bool], status: int, text: str) -> None:
    browser, keystone = keystone_browser()
    for name, value in state.items():
        setattr(keystone, name, value)
    page = browser.send("/sign-in", **PASSWORD)
    assert page.status == status
    assert text in text_of(page)
    assert b"10.0.0.1" not in page.body


@pytest.mark.parametrize("fields", [{"method": "password"}, {"method": "application_credential"}])
def test_fields_that_are_missing_are_told_without_asking_keystone(fields: dict[str, str]) -> None:
    browser, keystone = keystone_browser()
    page = browser.send("/sign-in", **fields)
    assert page.status == 400
    assert "Fill in the fields" in text_of(page)
    assert not keystone.asked


def test_guesses_are_limited_for_an_address_and_the_right_password_waits_too() -> None:
    browser, keystone = keystone_browser()
    guess = {**PASSWORD, "password": "guess"}
    statuses = [browser.send("/sign-in", **guess).status for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert len(keystone.asked) == 10
    refused = browser.send("/sign-in", **PASSWORD)
    assert "Too many attempts to sign in" in text_of(refused)
    browser.api.clock.advance(float(refused.headers["retry-after"]))
    assert browser.send("/sign-in", **PASSWORD).status == 303


def test_user_of_no_project_chooses_one_and_the_earlier_token_ends() -> None:
    browser, keystone = keystone_browser()
    chosen = browser.send("/sign-in", next="/?a=1", **PASSWORD)
    assert chosen.headers["location"] == "/project?next=%2F%3Fa%3D1"
    unscoped = browser.cookies["meter_token"]
    page = browser.get(chosen.headers["location"])
    assert "Choose a project" in text_of(page)
    assert b"&lt;script&gt;red" in page.body
    assert b"<script>red" not in page.body
    failed = browser.get("/")
    assert failed.status == 403
    assert b'href="/project?next=%2F"' in failed.body
    assert "Your token is for no project" in text_of(failed)
    switched = browser.send("/project", project_id="red", next="/?a=1")
    assert (switched.status, switched.headers["location"]) == (303, "/?a=1")
    assert keystone.asked[-1].token == unscoped
    assert keystone.revoked == [unscoped]
    assert "ann in <script>red" in text_of(browser.get("/"))


def test_switching_from_a_token_that_was_brought_does_not_revoke_it() -> None:
    browser, keystone = keystone_browser()
    browser.send("/sign-in", method="token", token=keystone.issue("blue"))
    assert browser.send("/project", project_id="red").status == 303
    assert keystone.revoked == []
    token = browser.cookies["meter_token"]
    browser.send("/sign-out")
    assert keystone.revoked == [token]


def test_token_that_cannot_be_exchanged_is_told() -> None:
    browser, keystone = keystone_browser()
    browser.send("/sign-in", method="token", token=keystone.issue("blue"))
    page = browser.send("/project", project_id="far")
    assert page.status == 403
    assert "Keystone does not exchange this token" in text_of(page)


def test_session_ends_with_its_token_and_says_so() -> None:
    browser, keystone = keystone_browser()
    browser.send("/sign-in", method="token", token=keystone.issue("blue", hours=1))
    browser.api.clock.advance(3601)
    sent = browser.get("/")
    assert (sent.status, sent.headers["location"]) == (303, "/sign-in?next=%2F&reason=expired")
    assert "Your session has ended" in text_of(browser.get(sent.headers["location"]))
    assert browser.send("/sign-out").status == 303
    assert not browser.cookies


def test_sign_out_while_keystone_is_away_ends_the_session_and_says_that_the_token_does_not() -> None:
    browser, keystone = keystone_browser()
    browser.send("/sign-in", project="blue", **PASSWORD)
    keystone.away = True
    assert browser.send("/sign-out").headers["location"] == "/sign-in?reason=unrevoked"
    assert not browser.cookies


def test_projects_while_keystone_is_away_are_told_as_missing() -> None:
    browser, keystone = keystone_browser()
    browser.send("/sign-in", project="blue", **PASSWORD)
    keystone.away = True
    page = browser.get("/project")
    assert page.status == 503
    assert "no project can be chosen now" in text_of(page)
    assert browser.send("/project", project_id="red").status == 503


def test_administrators_are_marked() -> None:
    browser, keystone = keystone_browser()
    browser.send("/sign-in", method="token", token=keystone.issue("blue", "admin"))
    assert "ann administrator in The blue project" in text_of(browser.get("/"))


def test_a_token_that_no_cookie_can_hold_begins_no_session() -> None:
    browser, keystone = keystone_browser()
    long = "t" * 5000
    keystone.valid[long] = keystone.valid[keystone.issue("blue")]
    page = browser.send("/sign-in", method="token", token=long)
    assert page.status == 400
    assert "too long" in text_of(page)


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/ /evil.example",
        "/\n/evil.example",
        "/a\r\nSet-Cookie: meter_token=evil",
        "/ü",
        "evil.example",
        "",
        None,
        "/sign-out",
        "/sign-in?next=/sign-in",
        "/" + "a" * 5000,
    ],
)
def test_no_path_leads_to_another_site(path: str | None) -> None:
    assert own_path(path) == "/"


@pytest.mark.parametrize("path", ["/", "/usage?meter=cpu&range=7d", "/resources/a%2Fb//c", "/%2F/evil", "/..//evil"])
def test_own_paths_are_kept(path: str) -> None:
    assert own_path(path) == path
