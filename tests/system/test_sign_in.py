"""A browser signs in at a real Keystone: with a password, an application credential or a token, switches project, and signs out."""

from __future__ import annotations

import http.client
from urllib.parse import urlencode
from urllib.parse import urlsplit

from tests.servers.keystone import Keystone
from tests.servers.keystone import keystone  # noqa: F401 - a fixture
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.test_api_keystone import validating


class Session:
    """What a browser keeps, and what it sends to the pages of ``api``."""

    def __init__(self, api: Daemon) -> None:
        self._address = urlsplit(api.api).netloc
        self.cookies: dict[str, str] = {}

    def ask(self, path: str, *, sent: bool = False, **fields: str) -> tuple[int, str, str]:
        """Return status, goal of a redirect, and body; send a form if it is ``sent`` or has ``fields``."""
        connection = http.client.HTTPConnection(self._address, timeout=60)
        headers = {
            "Accept": "text/html",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
        }
        body = None
        if sent or fields:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://{self._address}"}
            body = urlencode(fields)
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        for cookie in response.msg.get_all("set-cookie") or ():
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        text = response.read().decode()
        connection.close()
        return response.status, response.getheader("location") or "", text

    @property
    def token(self) -> str:
        return self.cookies["meter_token"].replace("%3D", "=")


def test_people_sign_in_switch_and_sign_out_at_keystone(
    furnished: House,
    keystone: Keystone,  # noqa: F811
) -> None:
    plum = keystone.add("plum", "pam", "hers")
    admin = {"X-Auth-Token": keystone.token("admin", "the administrator's", "admin")}
    _, users = keystone.ask("GET", "/users?name=pam", **admin)
    _, roles = keystone.ask("GET", "/roles?name=member", **admin)
    _, made = keystone.ask("POST", "/projects", {"project": {"name": "pear"}}, **admin)
    pear, pam = made["project"]["id"], users["users"][0]["id"]
    keystone.ask("PUT", f"/projects/{pear}/users/{pam}/roles/{roles['roles'][0]['id']}", **admin)
    api = validating(furnished, keystone)
    session = Session(api)

    def valid(token: str) -> bool:
        """Return whether Keystone takes ``token``, whatever Meter has cached."""
        try:
            keystone.ask("GET", "/auth/projects", **{"X-Auth-Token": token})
        except OSError:
            return False
        return True

    assert session.ask("/project")[:2] == (303, "/sign-in?next=%2F&reason=needed")
    person = {"method": "password", "username": "pam"}
    status, _, page = session.ask("/sign-in", password="wrong password", **person)
    assert status == 401
    assert "The sign-in was refused" in page

    assert session.ask("/sign-in", password="hers", **person)[:2] == (303, "/project?next=%2F")
    unscoped = session.token
    page = session.ask("/project")[2]
    assert plum in page
    assert pear in page
    assert session.ask("/")[0] == 403
    assert session.ask("/project", project_id=pear)[:2] == (303, "/")
    scoped = session.token
    status, _, page = session.ask("/")
    assert status == 200
    assert 'title="pear"' in page
    assert 'title="pam"' in page
    assert not valid(unscoped)
    assert valid(scoped)

    assert session.ask("/sign-out", sent=True)[:2] == (303, "/sign-in?reason=revoked")
    assert session.ask("/")[0] == 303
    assert not valid(scoped)
    assert fetch(f"{api.api}/v2/samples", **{"X-Auth-Token": scoped})[0] == 401

    own = keystone.token("pam", "hers", "plum")
    _, credential = keystone.ask(
        "POST",
        f"/users/{pam}/application_credentials",
        {"application_credential": {"name": "c"}},
        **{"X-Auth-Token": own},
    )
    fields = {"secret": credential["application_credential"]["secret"], "method": "application_credential"}
    by_id = Session(api)
    assert by_id.ask("/sign-in", credential=credential["application_credential"]["id"], **fields)[0] == 303
    assert 'title="plum"' in by_id.ask("/")[2]
    assert by_id.ask("/project", project_id=pear)[0] == 403  # it stays in its project
    by_name = Session(api)
    assert by_name.ask("/sign-in", credential="c", username="pam", **fields)[0] == 303

    pasted = Session(api)
    token = keystone.token("pam", "hers", "plum")
    assert pasted.ask("/sign-in", method="token", token=token, next="/?x=1")[:2] == (303, "/?x=1")
    assert pasted.ask("/")[0] == 200
    for secret in ("wrong password", "hers", scoped, unscoped, token, fields["secret"]):
        assert secret not in api.log
    assert "Traceback" not in api.log
