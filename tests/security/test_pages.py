"""No other site acts through a browser that is signed in, and nothing that a page shows runs, leaks or leads elsewhere."""

from __future__ import annotations

import re

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from meter.api import Api
from meter.api import HostPolicy
from meter.api import make_site
from meter.api.operation import Operation
from meter.api.request.body_parameters import MAX_FORM_BYTES
from meter.api.web.pages import PAGES
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.http_exchange import exchange
from tests.sign_in import Browser
from tests.sign_in import keystone_browser

FORMS = [each for each in PAGES if each.form]
HTML_PAGES = [each for each in PAGES if not each.form and each.media_types[0] == "text/html"]
PASSWORD = {"method": "password", "username": "ann", "password": "right", "project": "blue"}

CROSS_SITE = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://other.cloud:8777"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://cloud:8777"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {},
]


def path_of(operation: Operation) -> str:
    """Return a path of ``operation``, with ``x`` for its variables."""
    return re.sub(r"{\w+}", "x", operation.path)


def signed_in() -> tuple[Browser, str]:
    browser, keystone = keystone_browser()
    token = keystone.issue("blue", "admin")
    browser.send("/sign-in", method="token", token=token)
    assert browser.cookies
    return browser, token


@pytest.mark.parametrize("headers", CROSS_SITE, ids=str)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.path)
def test_no_form_is_accepted_from_another_site(form: Operation, headers: dict[str, str]) -> None:
    browser, keystone = keystone_browser()
    browser.send("/sign-in", **PASSWORD)
    asked = len(keystone.asked)
    sent = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": f"meter_token={browser.cookies['meter_token']}",
    }
    response = browser.api(path_of(form), method="POST", body=b"method=token&token=evil", headers={**sent, **headers})
    assert response.status == 403
    assert not response.cookies
    assert (len(keystone.asked), keystone.revoked) == (asked, [])


@pytest.mark.parametrize("headers", CROSS_SITE, ids=str)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_the_cookie_does_not_count_in_what_another_site_posts_to_the_api(
    headers: dict[str, str], content_type: str
) -> None:
    browser, token = signed_in()
    cookie = {"Cookie": f"meter_token={token}", "Content-Type": content_type}
    for path in ("/v2/meters/apples", "/v2/query/samples"):
        response = browser.api(path, method="POST", body=b"{}", headers={**headers, **cookie})
        assert response.status in (401, 415)


@pytest.mark.parametrize(
    ("mode", "destination", "status"),
    [
        ("navigate", "document", 200),
        ("navigate", "iframe", 401),
        ("no-cors", "script", 401),
        ("cors", "empty", 401),
    ],
)
def test_another_site_can_link_to_the_api_and_load_nothing_with_the_cookie(
    mode: str, destination: str, status: int
) -> None:
    browser, token = signed_in()
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": destination}
    assert browser.api("/v2/samples", headers={"Cookie": f"__Host-meter_token={token}", **headers}).status == status


@pytest.mark.parametrize("origins", [["*"], ["http://dashboard.example"]])
def test_scripts_of_other_origins_never_get_what_a_cookie_shows(origins: list[str]) -> None:
    api = ApiClient(cors_origins=origins)
    for path in ("/", "/v2/samples", "/sign-in"):
        response = api(path, headers={"Origin": "http://dashboard.example", "Accept": "text/html"})
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("over_tls", [False, True])
def test_cookies_are_for_this_host_alone_and_for_no_script(over_tls: bool) -> None:
    browser, _ = keystone_browser()
    origin = {"Origin": "https://cloud:8777"} if over_tls else {}
    cookies = browser.send("/sign-in", origin, **PASSWORD).cookies
    assert len(cookies) == 2
    for cookie in cookies:
        assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        assert ("Secure" in cookie) is over_tls
        assert cookie.startswith("__Host-") is over_tls


def test_a_session_that_somebody_else_began_does_not_survive_the_sign_in() -> None:
    browser, keystone = keystone_browser()
    planted = keystone.issue("red")
    browser.cookies["meter_token"] = planted
    browser.send("/sign-in", **PASSWORD)
    assert browser.cookies["meter_token"] != planted


def test_a_cookie_that_another_host_of_the_domain_sets_does_not_replace_that_of_the_session() -> None:
    browser, keystone = keystone_browser()
    own, evil = keystone.issue("blue"), keystone.issue("red")

    def project(cookie: str) -> str:
        page = browser.api("/", headers={"Accept": "text/html", "Cookie": cookie}).body.decode()
        return "blue" if "The blue project" in page else "red" if "red" in page else ""

    assert project(f"meter_token={evil}; __Host-meter_token={own}") == "blue"
    assert project(f"__Host-meter_token={own}; meter_token={evil}") == "blue"
    assert project(f"meter_token={evil}; meter_token={own}") == ""


def test_over_tls_a_cookie_that_another_host_of_the_domain_sets_begins_no_session() -> None:
    browser, keystone = keystone_browser()
    headers = {"Accept": "text/html", "Cookie": f"meter_token={keystone.issue('red')}", "Sec-Fetch-Site": "none"}
    response = browser.api("/", headers=headers)
    assert (response.status, response.headers["location"]) == (303, "/sign-in?next=%2F&reason=needed")


def test_cookies_of_other_programs_of_the_host_do_not_hide_the_session() -> None:
    browser, token = signed_in()
    cookie = f'a={{"b": "c;d"}}; e[f]=g h; ={"x" * 300}; meter_token={token}; i'
    assert browser.api("/v2/samples", headers={"Cookie": cookie}).status == 200


def html_responses() -> list[tuple[str, Response]]:
    browser, _ = signed_in()
    found = [(each.path, browser.get(path_of(each))) for each in HTML_PAGES]
    found += [("404", browser.get("/nothing")), ("405", browser.send("/nothing"))]
    found += [("400", browser.get("/?unknown=1")), ("/docs", browser.get("/docs"))]
    stranger, _ = keystone_browser()
    return [*found, ("303", stranger.get("/")), ("401", stranger.send("/sign-in", **{**PASSWORD, "password": "no"}))]


def test_everything_in_html_restricts_what_a_browser_does_with_it() -> None:
    for name, response in html_responses():
        assert response.headers["content-type"] == "text/html; charset=utf-8", name
        policy = response.headers["content-security-policy"]
        assert re.search(r"default-src '(self|none)'", policy), name
        assert "frame-ancestors 'none'" in policy, name
        assert "script" not in policy, name
        assert not re.search(
            r"unsafe-(inline|eval)", policy.replace("style-src 'unsafe-inline'", "") if name == "/docs" else policy
        ), name
        assert response.headers["cache-control"] == "no-store", name
        assert response.headers["x-content-type-options"] == "nosniff", name
        assert response.headers.get("referrer-policy", "no-referrer") in ("same-origin", "no-referrer"), name


def test_no_page_has_anything_inline_or_from_elsewhere() -> None:
    for name, response in html_responses():
        if name == "/docs":
            continue  # it has its own style, which its own policy allows
        text = response.body.decode()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), name
        assert not re.search(r"""<script(?![^>]*(\ssrc="/static/|type="application/json"))""", text), name
        assert not re.search(r"""(src|href|action)="(https?:)?//""", text), name


@pytest.mark.parametrize("goal", ["//evil.example", "/\\evil.example", "https://evil.example", "/%0d%0aLocation:%20x"])
def test_no_link_to_the_sign_in_page_leads_to_another_site(goal: str) -> None:
    browser, _ = keystone_browser()
    location = browser.send("/sign-in", next=goal, **PASSWORD).headers["location"]
    assert location in ("/", "/%0d%0aLocation:%20x")
    assert "evil" not in browser.get(f"/sign-in?next={goal}").body.decode()


def test_a_path_with_two_slashes_leads_back_to_no_other_site() -> None:
    browser, _ = keystone_browser()
    for path in ("//evil.example/%2e%2e", "/%5cevil.example", "/%0d%0aSet-Cookie:%20a=b"):
        response = browser.get(path)
        assert "location" not in response.headers or response.headers["location"].startswith("/sign-in?next=%2F&")
        assert not response.cookies


@pytest.mark.parametrize(
    "name",
    ["../page.py", "..%2fpage.py", "%2e%2e/page.py", "/etc/passwd", "....//page.py", "..\\page.py", "", "style.css/"],
)
def test_static_serves_only_its_own_files(name: str) -> None:
    response = ApiClient()(f"/static/{name}")
    assert response.status in (200, 404)
    assert b"import" not in response.body
    assert b"root:" not in response.body


def test_secrets_are_in_no_address_no_log_and_no_page() -> None:
    events: list[str] = []

    def keep(event: object) -> None:
        events.append(repr(event))

    globalLogPublisher.addObserver(keep)
    try:
        browser, keystone = keystone_browser()
        pages = [browser.send("/sign-in", method="password", username="ann", password="hunter2")]
        keystone.away = True
        pages += [browser.send("/sign-in", method="password", username="ann", password="hunter2")]
        pages += [
            browser.send("/sign-in", method="token", token="hunter2"),
            browser.send("/sign-in", password="hunter2"),
        ]
        pages += [browser.send("/sign-in", method="hunter2", username="hunter2hunter2" * 1000)]
        keystone.away = False
        pages += [browser.send("/sign-in", **PASSWORD), browser.get("/"), browser.send("/sign-out")]
    finally:
        globalLogPublisher.removeObserver(keep)
    secrets = ("hunter2", "right", *keystone.valid, *keystone.revoked)
    written = "".join(events) + "".join(page.headers.get("location", "") for page in pages)
    shown = "".join(page.body.decode() for page in pages[:4] + pages[6:])
    for secret in secrets:
        assert secret not in written
        assert f'"{secret}"' not in shown or secret == "right"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.path)
def test_fields_of_a_form_in_its_address_are_refused(form: Operation) -> None:
    browser, _ = signed_in()
    assert browser.send(f"{path_of(form)}?token=x&password=y").status == 400


def test_a_repeated_secret_is_refused_without_being_echoed() -> None:
    browser, _ = keystone_browser()
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    for body in (
        b"password=hunter2&password=hunter2",
        b'{"password": {"hunter2": "hunter2"}}',
        b"password=\xfc\x00hunter2",
        b"password=%fchunter2",
        b"password=%00hunter2",
    ):
        response = browser.api("/sign-in", method="POST", body=body, headers=form)
        assert response.status == 400
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        if not body.startswith(b"{"):
            assert b"hunter2" not in response.body
    json = {**form, "Content-Type": "application/json"}
    assert browser.api("/sign-in", method="POST", body=b'{"password": "hunter2"}', headers=json).status == 415
    assert browser.api("/sign-in", method="POST", body=b"a=" + b"a" * MAX_FORM_BYTES, headers=form).status == 413


def test_a_page_of_a_foreign_name_of_this_host_cannot_send_forms() -> None:
    """DNS rebinding: the page's origin and the Host header are both the attacker's."""
    clock = Clock()
    site = make_site(Api(MemoryStore(clock), clock, hosts=HostPolicy(refuse_unknown=True)), clock)
    head = b"POST /sign-out HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nContent-Length: 0\r\n\r\n"
    assert exchange(site, head).status == 421
