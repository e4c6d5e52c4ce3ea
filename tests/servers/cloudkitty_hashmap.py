"""CloudKitty's real API with its module HashMap on SQLite, and what HashMap computes by the rules in that database."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.servers import cloudkitty
from tests.servers.wsgi import serving

START_SECONDS = 180.0

# The migrations of HashMap do not run on SQLite: the tables are made as its models say. Without Keystone nobody has made a rule.
_PREPARED = """
from cloudkitty import service
service.prepare_service(["cloudkitty-api", "--config-file", configuration])
from cloudkitty import db
from cloudkitty.db import api as database
from cloudkitty.rating.hash.db.sqlalchemy import models
"""
SERVE = serving(
    "configuration, port = sys.argv.pop(1), int(sys.argv.pop(1))"
    + _PREPARED
    + """
database.get_instance().get_migration().upgrade("head")
with db.session_for_write() as session:
    models.HashMapService.metadata.create_all(session.get_bind())
from cloudkitty.rating.hash.controllers import mapping
mapping.get_request_user = lambda: "admin"
from cloudkitty.api import app
application = app.load_app()
"""
)

RATE = (
    "import sys, json, datetime\nconfiguration = sys.argv.pop(1)"
    + _PREPARED
    + """
from cloudkitty import dataframe
from cloudkitty.rating.hash import HashMap
prices, modules = [], {}
for case in json.load(sys.stdin):
    start = datetime.datetime.fromisoformat(case["time"])
    module = modules.get((case["tenant"], start))
    if module is None:
        module = modules[case["tenant"], start] = HashMap(case["tenant"])
        module.reload_config(start)
    frame = dataframe.DataFrame(start=start, end=start + datetime.timedelta(hours=1))
    frame.add_point(dataframe.DataPoint("unit", case["qty"], 0, {}, case["metadata"]), case["service"])
    [(_, point)] = module.process(frame).iterpoints()
    prices.append(str(point.price))
print(json.dumps(prices))
"""
)

_PASTE = """
[pipeline:cloudkitty+noauth]
pipeline = request_id api
[app:api]
paste.app_factory = cloudkitty.api.app:app_factory
[filter:request_id]
paste.filter_factory = oslo_middleware:RequestId.factory
"""


class HashMapServer:
    """CloudKitty with ``auth_strategy = noauth`` at ``url``."""

    def __init__(self, directory: Path, python: Path, url: str) -> None:
        self.url = url
        self._configuration = directory / "cloudkitty.conf"
        self._python = python

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """Return the answer of HashMap's part of the API."""
        request = urllib.request.Request(
            f"{self.url}/v1/rating/module_config/hashmap/{path}",
            method=method,
            headers={"Content-Type": "application/json"},
            data=None if document is None else json.dumps(document).encode(),
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def rate(self, cases: Sequence[dict[str, Any]]) -> list[str]:
        """Return what HashMap charges for a period with this usage: ``service``, ``tenant``, ``metadata``, ``qty``, ``time``."""
        ran = subprocess.run(
            [str(self._python), "-c", RATE, str(self._configuration)],
            input=json.dumps(cases),
            capture_output=True,
            text=True,
            check=True,
            timeout=START_SECONDS,
        )
        prices: list[str] = json.loads(ran.stdout.splitlines()[-1])
        return prices


@contextmanager
def hashmap_server(directory: Path) -> Iterator[HashMapServer]:
    """Run CloudKitty's API in ``directory``."""
    python = cloudkitty.python()
    (directory / "paste.ini").write_text(_PASTE)
    configuration = directory / "cloudkitty.conf"
    configuration.write_text(
        f"[DEFAULT]\nauth_strategy = noauth\ntransport_url = fake://\napi_paste_config = {directory}/paste.ini\n"
        f"[database]\nconnection = sqlite:///{directory}/cloudkitty.sqlite\n[storage]\nversion = 1\nbackend = sqlalchemy\n"
    )
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-c", SERVE, str(configuration), str(port)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        server = HashMapServer(directory, python, f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                server.ask("GET", "services")
                break
            except urllib.error.URLError:
                if process.poll() is not None or time.monotonic() >= deadline:
                    raise RuntimeError((directory / "log").read_text()[-3000:]) from None
                time.sleep(0.2)
        yield server
    finally:
        process.kill()
        process.wait()
