"""What definitions of pollsters that send HTTP requests have in common: headers and credentials."""

from __future__ import annotations

import base64
from pathlib import Path

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import SecretStr

from meter.http import IHttpClient
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IPluginContext


class RequestFields(BaseModel):
    """Additional headers, and a user name with password or a bearer token for ``Authorization``."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)

    headers: dict[str, str] = {}
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: str = ""
    token_file: str = ""

    def all_headers(self) -> dict[str, str]:
        """Return the headers, including Authorization; files with secrets are read on each call (``OSError``)."""
        headers = dict(self.headers)
        if self.username:
            secret = _read_secret(self.password_file) if self.password_file else self.password.get_secret_value()
            pair = base64.b64encode(f"{self.username}:{secret}".encode()).decode("ascii")
            headers["Authorization"] = f"Basic {pair}"
        elif self.token_file:
            headers["Authorization"] = f"Bearer {_read_secret(self.token_file)}"
        return headers


def enabled_with_http_client(context: IPluginContext) -> Enabled | Disabled:
    """Return whether the daemon has an HTTP client, for a pollster that needs one."""
    try:
        context.provider(IHttpClient)
    except LookupError:
        return Disabled("this daemon has no HTTP client")
    return Enabled()


def _read_secret(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()
