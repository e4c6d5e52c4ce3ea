"""The pages of the session: ``/sign-in``, ``/sign-out`` and ``/project``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from meter.api.auth.browser_session import MAX_COOKIE_CHARACTERS
from meter.api.auth.browser_session import ended_cookies
from meter.api.auth.browser_session import session_cookie
from meter.api.auth.browser_session import session_cookies
from meter.api.auth.requester import Requester
from meter.api.auth.sign_in import CredentialsIncomplete
from meter.api.auth.sign_in import CredentialsRefused
from meter.api.errors import ApiError
from meter.api.errors import TryLater
from meter.api.errors import Unauthenticated
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.operation import form
from meter.api.web.operation import page
from meter.api.web.page import HEADERS
from meter.api.web.page import HTML
from meter.api.web.page import page_response
from meter.api.web.session import own_path
from meter.interfaces import Unavailable

NEXT = Parameter("next", "string", "The path of a page of this API to go to afterwards.")
REASON = Parameter("reason", "string", "Why the browser was sent here.")

METHOD = Parameter("method", "string", "password, application_credential or token.")
FIELDS = (
    Parameter("username", "string", "Name of the user."),
    Parameter("user_domain", "string", "Name of the domain of the user, Default if it is empty."),
    Parameter("password", "string", "Password of the user.", secret=True),
    Parameter("project", "string", "Name or id of the project; without one, the user's default project or none."),
    Parameter("project_domain", "string", "Name of the domain of the project, that of the user if it is empty."),
    Parameter("credential", "string", "Id of the application credential, or its name, with the name of the user."),
    Parameter("secret", "string", "Secret of the application credential.", secret=True),
    Parameter("token", "string", "A token.", secret=True),
)
SHOWN_AGAIN = ("username", "user_domain", "project", "project_domain", "credential")
"""Fields that keep what was typed after a failure: none is a secret."""

REASONS: Mapping[str, str] = {
    "needed": "Sign in to see this page.",
    "expired": "Your session has ended: its token has expired or has been revoked. Sign in again.",
    "signed-out": "You are signed out.",
    "revoked": "You are signed out, and your token has been revoked.",
    "kept": "You are signed out of this browser. Your token stays valid until it expires: you brought it, and other programs may use it.",
    "unrevoked": "You are signed out of this browser, but Keystone could not revoke the token, which stays valid until it expires.",
}

WRONG = "The sign-in was refused: a name, the password or the project is wrong, or the account is locked."
WRONG_CREDENTIAL = "The sign-in was refused: the application credential or its secret is wrong, or it has expired."
WRONG_TOKEN = "The token is not valid: it is wrong, has expired or has been revoked."
SECOND_FACTOR = (
    "This account needs more than a password. Get a token with OpenStack's command line, "
    "openstack token issue, and paste it under Token."
)
NO_EXCHANGE = (
    "Keystone does not exchange this token for one of that project. Tokens of application credentials stay in their project, "
    "and a cloud can forbid the exchange. Sign in again with the project."
)
KEYSTONE_AWAY = "Keystone does not answer, so nobody can sign in now. Try again in a minute."
TOKENS_AWAY = "The token cannot be checked now, because its database does not answer. Try again in a minute."
TOO_LONG = "The token is too long for a cookie of a browser."

CHALLENGE = {"WWW-Authenticate": 'Form realm="meter"'}


async def sign_in_page(context: RequestContext) -> RawResponse:
    """Handle ``GET /sign-in``."""
    return await _form_page(context, note=REASONS.get(context.arguments["reason"] or "", ""))


async def sign_in(context: RequestContext) -> RawResponse:
    """Handle ``POST /sign-in``: begin a session, or show the form again and say why not."""
    arguments, mode = context.arguments, context.sign_in.mode
    method = arguments["method"] or "token"
    if mode == "none" or (mode == "tokens" and method != "token"):
        raise ApiError(400, "This API does not sign in this way.")
    try:
        token, requester = await _token_and_owner(context, method)
    except Unauthenticated:
        return await _form_page(context, problem=WRONG_TOKEN, status=401)
    except CredentialsRefused as error:
        wrong = WRONG_CREDENTIAL if method == "application_credential" else WRONG
        return await _form_page(
            context, problem=SECOND_FACTOR if error.reason == "second factor" else wrong, status=401
        )
    except CredentialsIncomplete:
        return await _form_page(
            context, problem="Fill in the fields of one way to sign in: a name and a secret.", status=400
        )
    except TryLater as error:
        return await _form_page(context, problem=error.text, status=error.status, headers=error.headers)
    except Unavailable:
        problem = KEYSTONE_AWAY if mode == "keystone" else TOKENS_AWAY
        return await _form_page(context, problem=problem, status=503, headers={"Retry-After": "60"})
    if len(session_cookie(token, secure=True)) > MAX_COOKIE_CHARACTERS:
        return await _form_page(context, problem=TOO_LONG, status=400)
    goal = own_path(arguments["next"])
    if mode == "keystone" and not requester.project_id and not requester.is_admin:
        goal = f"/project?next={quote(goal, safe='')}"
    cookies = session_cookies(token, issued=method != "token", secure=context.session.secure)
    return _redirect(goal, cookies)


async def sign_out(context: RequestContext) -> RawResponse:
    """Handle ``POST /sign-out``: end the session, also one whose token is not valid any more."""
    session = context.session
    reason = "signed-out"
    if session.token is not None and session.issued and session.mode == "keystone":
        try:
            await context.sign_in.end(session.token, session.address)
            reason = "revoked"
        except (ApiError, Unavailable):
            reason = "unrevoked"
    elif session.token is not None and session.mode != "none":
        reason = "kept"
    return _redirect(f"/sign-in?reason={reason}", ended_cookies(secure=session.secure))


async def project_page(context: RequestContext) -> RawResponse:
    """Handle ``GET /project``: the projects that can be switched to."""
    return await _project_page(context)


async def switch_project(context: RequestContext) -> RawResponse:
    """Handle ``POST /project``: go on with a token for another project. That which Meter had got before is revoked."""
    session, chosen = context.session, context.arguments["project_id"]
    if session.token is None or session.mode != "keystone" or chosen is None:
        raise ApiError(400, "There is no project to switch to: sign in to this page, and choose one.")
    fields = {"token": session.token, "project_id": chosen}
    try:
        token, _ = await context.sign_in.with_credentials(fields, session.address)
    except CredentialsRefused:
        return await _project_page(context, problem=NO_EXCHANGE, status=403)
    if session.issued:
        with suppress(ApiError, Unavailable):  # it expires, and no browser has it any more
            await context.sign_in.end(session.token, session.address)
    cookies = session_cookies(token, issued=True, secure=session.secure)
    return _redirect(own_path(context.arguments["next"]), cookies)


async def _token_and_owner(context: RequestContext, method: str) -> tuple[str, Requester]:
    given = {name: (context.arguments[name] or "").strip() for name in SHOWN_AGAIN}
    address = context.session.address
    domain = given["user_domain"] or "Default"
    if method == "token":
        token = (context.arguments["token"] or "").strip()
        return token, await context.sign_in.with_token(token, address)
    fields: dict[str, str] = {}
    if method == "application_credential":
        fields["application_credential_secret"] = (context.arguments["secret"] or "").strip()
        if given["username"]:
            fields |= {"application_credential_name": given["credential"]}
            fields |= {"username": given["username"], "user_domain_name": domain}
        else:
            fields |= {"application_credential_id": given["credential"]}
    elif method == "password":
        # A password is sent as it is: blanks at its ends can be part of it.
        fields |= {"username": given["username"], "user_domain_name": domain}
        fields["password"] = context.arguments["password"] or ""
        if given["project"]:
            fields |= {"project_name": given["project"], "project_domain_name": given["project_domain"] or domain}
    else:
        raise ApiError(400, "method must be password, application_credential or token.")
    return await context.sign_in.with_credentials(fields, address)


async def _form_page(
    context: RequestContext,
    *,
    note: str = "",
    problem: str = "",
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> RawResponse:
    arguments = context.arguments
    typed = {name: arguments.get(name) or "" for name in SHOWN_AGAIN}
    made = await page_response(
        context,
        "sign_in.html",
        "Sign in",
        status=status,
        navigation=(),
        session=None,
        mode=context.sign_in.mode,
        method=arguments.get("method") or "password",
        next=own_path(arguments["next"]),
        note=note,
        problem=problem,
        typed=typed,
    )
    more = CHALLENGE if status == 401 else headers or {}
    return RawResponse(made.media_type, made.body, {**made.headers, **more}, status)


async def _project_page(context: RequestContext, *, problem: str = "", status: int | None = None) -> RawResponse:
    session = context.session
    projects: Any = ()
    if session.mode == "keystone" and session.token is not None:
        try:
            projects = await context.sign_in.projects(session.token)
        except CredentialsRefused:
            problem = problem or "Keystone does not list the projects of this token."
        except Unavailable:
            problem, status = problem or "Keystone does not answer, so no project can be chosen now.", 503
    return await page_response(
        context,
        "project.html",
        "Project",
        status=status,
        projects=projects[:MAX_PROJECTS],
        omitted=max(0, len(projects) - MAX_PROJECTS),
        next=own_path(context.arguments["next"]),
        problem=problem,
    )


MAX_PROJECTS = 500


def _redirect(path: str, cookies: tuple[str, ...]) -> RawResponse:
    return RawResponse(HTML, b"", {**HEADERS, "Location": path}, 303, cookies)


PAGES = (
    page("/sign-in", sign_in_page, "Sign in.", NEXT, REASON, public=True, costly=False),
    form("/sign-in", sign_in, "Begin a session.", NEXT, METHOD, *FIELDS, public=True),
    form("/sign-out", sign_out, "End the session.", public=True),
    page("/project", project_page, "The projects of a user.", NEXT, costly=False),
    form("/project", switch_project, "Switch to another project.", NEXT, Parameter("project_id", "string", "Its id.")),
)
