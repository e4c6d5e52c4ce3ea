"""Hostile HTTP requests to a running ``meter-api``: made at random from a seed, sent over sockets, and the responses judged.

The same seed makes the same requests. The operations and their parameters are read from the API's own OpenAPI document, so
that new ones take part at once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from meter.api.application import API_PATHS
from meter.sample import utc_text
from tests.http_exchange import RawResponse
from tests.http_exchange import parse
from tests.system.daemons import BASE
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch

ADMIN = "token-of-the-administrator"
TENANTS = ("acme", "rival")
CANARIES = {tenant: f"canary{hashlib.sha256(tenant.encode()).hexdigest()[:16]}" for tenant in TENANTS}
"""A text in the samples of each tenant that no request contains: whoever else receives it has seen a foreign sample."""

SAMPLES_PER_TENANT = 200
CLIENTS = 8
ANSWER_SECONDS = 60.0
"""How long a well-formed request may take on a busy machine."""

PATIENCE_SECONDS = 0.3
"""How long a response to a request is awaited that can be incomplete."""

STREAM_BYTES = 1 << 20
"""How much of a response is read; of an event stream, only what comes within the patience."""

TEXTS: Sequence[str] = (
    *("", " ", "0", "-1", "1", "cpu", "vm-acme-1", "vm-rival-1", "shared-vm", "acme", "rival", "None", "null", "True"),
    *(
        "'",
        '"',
        "' OR '1'='1",
        "'; DROP TABLE sample; --",
        "x' UNION SELECT name FROM resource --",
        "$$",
        "$1",
        "%s",
        "%(a)s",
    ),
    *(
        "\\",
        "\\x00",
        "\x00",
        "%",
        "%%",
        "\r\nX-Injected: 1",
        "\r\n\r\n<html>",
        "{{7*7}}",
        "${jndi:ldap://a}",
        "<script>",
    ),
    *("../../etc/passwd", "/", "//", "..", ".", "=cmd|' /C calc'!A0", "@SUM(1)", ";", "a;b", "a&b", "a=b", "#", "?"),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e308",
        "1e400",
        "9" * 400,
        "0x10",
        "1_0",
        "\u0661",
        "\ud7ff",
        "\U0001f600",
        "\u202e",
    ),
    *(
        "2026-01-01",
        "2026-13-45",
        "0000-00-00",
        "9999-12-31T23:59:59",
        "10000-01-01",
        "0001-01-01T00:00:00+14:00",
        "now",
    ),
    *("(a+)+$", "(a|a)*b", "[", "(?P<n>", "^" * 300, ".*" * 50, "(" * 200, "\\p{L}", "(?i)x{1000}{1000}", "metadata.a"),
    *(
        "metadata.",
        "resource_metadata.a.b.c",
        "metadata.a'b",
        "timestamp",
        "a" * 3000,
        "\u00e4" * 1000,
        "integer",
        "datetime",
    ),
)
NUMBERS: Sequence[Any] = (0, -1, 1, 2**31, 2**63, 2**64, 10**400, -0.0, 0.1, 1e308, 5e-324, 1.5e308)
FIELDS = (
    "meter",
    "resource_id",
    "project_id",
    "user_id",
    "source",
    "timestamp",
    "volume",
    "type",
    "unit",
    "message_id",
)
WORDS = ("=", "!=", "<", "<=", ">", ">=", "=~", "in", "and", "or", "not", "=<", "like")
METHODS = (
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "BREW",
    "G\x00T",
)
TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "text/plain",
    "application/x-www-form-urlencoded",
    "*/*",
)
ACCEPTS = (
    "*/*",
    "text/csv",
    "application/x-ndjson",
    "application/json",
    "text/html",
    "image/png",
    "text/csv;q=nan",
    ",,,;",
)
HEADERS = (
    *(
        "Host",
        "X-Auth-Token",
        "Accept",
        "Origin",
        "Content-Type",
        "Content-Encoding",
        "Content-Length",
        "Expect",
        "Range",
    ),
    *(
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "Cookie",
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "Forwarded",
        "If-Match",
    ),
    *(
        "X-HTTP-Method-Override",
        "X-Roles",
        "X-Project-Id",
        "X-Identity-Status",
        "X-Real-IP",
        "Authorization",
        "Via",
        "Te",
    ),
)


@dataclass(frozen=True, slots=True)
class HostileRequest:
    """A request: who sends it (a tenant, ``admin`` or ``nobody``), and the pieces to send, with pauses between them.

    ``complete``: a response must follow. ``method`` is HEAD if the response has no body.
    """

    number: int
    sender: str
    pieces: tuple[bytes, ...]
    complete: bool
    method: str

    def __str__(self) -> str:
        return f"request {self.number} of {self.sender}: {b''.join(self.pieces)[:600]!r}"


class RequestGenerator:
    """Makes hostile requests from ``seed`` to the ``operations`` of an OpenAPI document."""

    def __init__(self, seed: int, document: dict[str, Any]) -> None:
        self._random = random.Random(seed)
        self._operations = [
            (method.upper(), path, [each["name"] for each in operation["parameters"] if each["in"] == "query"])
            for path, methods in sorted(document["paths"].items())
            for method, operation in sorted(methods.items())
        ]

    def requests(self, count: int) -> Iterator[HostileRequest]:
        """Yield ``count`` requests."""
        kinds: Sequence[tuple[int, Callable[[int], HostileRequest]]] = (
            (40, self._query),
            (20, self._body),
            (10, self._foreign),
            (10, self._headers),
            (12, self._mutated),
            (3, self._truncated),
            (3, self._slow),
            (2, self._garbage),
        )
        for number in range(count):
            [make] = self._random.choices([make for _, make in kinds], [weight for weight, _ in kinds])
            yield make(number)

    # --- kinds ---

    def _query(self, number: int) -> HostileRequest:
        method, path, names = self._operation()
        return self._request(number, method, self._target(path, names))

    def _body(self, number: int) -> HostileRequest:
        content: Any = self._random.choice(
            (self._json, self._complex_query, self._samples, self._samples, self._arguments)
        )()
        body = json.dumps(content).encode() if self._random.random() < 0.9 else self._bytes(200)
        if self._random.random() < 0.05:
            depth = self._random.choice((100, 1000, 20_000))
            body = self._random.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))
        paths = (
            "/v2/query/samples",
            "/v2/meters/cpu",
            "/v2/meters/apples",
            "/v2/meters/apples?direct=True",
            "/v2/samples",
        )
        path = self._random.choice((*paths, *paths, self._operation()[1]))
        method = "GET" if path == "/v2/samples" else "POST"
        headers = {"Content-Type": self._random.choice((*TYPES, *["application/json"] * 12))}
        return self._request(number, method, self._target(path, []), headers, body, chunked=self._random.random() < 0.2)

    def _foreign(self, number: int) -> HostileRequest:
        """Ask for what belongs to the other tenant, by its names, which are no secret."""
        me, other = self._random.sample(TENANTS, 2)
        targets = (
            f"/v2/resources/vm-{other}-1",
            f"/v2/resources?q.field=project_id&q.value={other}",
            f"/v2/samples?q.field=project_id&q.value={other}",
            f"/v2/samples?q.field=resource_id&q.value=vm-{other}-1",
            "/v2/resources/shared-vm",
            "/v2/meters/cpu?q.field=resource_id&q.value=shared-vm",
            f"/v2/meters/cpu/statistics?q.field=resource_id&q.value=vm-{other}-1&groupby=user_id",
            "/v2/meters/cpu/statistics?groupby=user_id&groupby=resource_metadata.display_name",
            f"/v1/projects/{other}/meters/cpu",
            f"/v1/projects/{other}/resources",
            "/v1/users",
            f"/v1/resources/vm-{other}-1/meters/cpu",
            f"/v2/segments?project_id={other}",
            f"/v2/segments?resource_id=vm-{other}-1",
            "/v2/meters?limit=10000",
            "/v2/live",
        )
        expressions = (
            {"=": {"project_id": other}},
            {"or": [{"=": {"project_id": me}}, {"=": {"project_id": other}}]},
            {"not": {"=": {"project_id": me}}},
            {"=~": {"resource_id": f"vm-{other}.*"}},
            {"=~": {"metadata.display_name": ".*"}},
            {"in": {"project_id": [me, other]}},
            {"!=": {"user_id": "x"}},
            {"or": [{">": {"volume": -1}}, {"=": {"resource_id": f"vm-{other}-1"}}]},
        )
        if self._random.random() < 0.4:
            body = json.dumps({"filter": json.dumps(self._random.choice(expressions)), "limit": 1000}).encode()
            headers = {"Content-Type": "application/json", "Accept": self._random.choice(("*/*", "text/csv"))}
            return self._request(number, "POST", "/v2/query/samples", headers, body, sender=me)
        headers = {"Accept": self._random.choice(ACCEPTS[:4]), "X-Project-Id": other, "X-Roles": "admin"}
        return self._request(number, "GET", self._random.choice(targets), headers, sender=me)

    def _headers(self, number: int) -> HostileRequest:
        method, path, names = self._operation()
        headers = {
            self._random.choice(HEADERS): self._random.choice((self._text(), self._bytes(20).decode("latin-1")))
            for _ in range(self._random.randint(1, 4))
        }
        return self._request(number, method, self._target(path, names), headers, certain=False)

    def _mutated(self, number: int) -> HostileRequest:
        base = self._random.choice((self._query, self._body))(number)
        content = bytearray(b"".join(base.pieces))
        for _ in range(self._random.randint(1, 4)):
            place = self._random.randrange(len(content) + 1)
            match self._random.randrange(4):
                case 0:
                    content[place:place] = self._bytes(8)
                case 1:
                    del content[place : place + self._random.randint(1, 20)]
                case 2:
                    content[place : place + 1] = bytes([self._random.randrange(256)])
                case 3:
                    content[place:place] = content[: self._random.randrange(200)]
        # No mutation makes the token of another sender. It can make another method.
        return HostileRequest(number, base.sender, (bytes(content),), False, "HEAD")

    def _truncated(self, number: int) -> HostileRequest:
        base = self._body(number)
        content = b"".join(base.pieces)
        return HostileRequest(
            number, base.sender, (content[: self._random.randrange(len(content))],), False, base.method
        )

    def _slow(self, number: int) -> HostileRequest:
        base = self._random.choice((self._query, self._body))(number)
        content = b"".join(base.pieces)
        places = sorted(self._random.randrange(len(content)) for _ in range(self._random.randint(1, 5)))
        pieces = [content[begin:end] for begin, end in zip([0, *places], [*places, len(content)], strict=True)]
        return HostileRequest(number, base.sender, tuple(pieces), base.complete, base.method)

    def _garbage(self, number: int) -> HostileRequest:
        content = self._random.choice(
            (
                self._bytes(2000),
                b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * self._random.randrange(3000) + b"\r\n",
                b"GET /" + b"a" * self._random.randrange(100_000) + b" HTTP/1.1\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * self._random.randrange(6000) + b"\r\n\r\n",
                b"\x16\x03\x01" + self._bytes(100),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            )
        )
        return HostileRequest(number, "nobody", (content,), False, "HEAD")

    # --- parts ---

    def _operation(self) -> tuple[str, str, list[str]]:
        method, path, names = self._random.choice(self._operations)
        if self._random.random() < 0.1:
            method = self._random.choice(METHODS)
        return method, path, names

    def _target(self, path: str, names: Sequence[str]) -> str:
        while "{" in path:
            before, _, rest = path.partition("{")
            value = self._random.choice(("cpu", "apples", "vm-acme-1", "shared-vm", "acme", self._text()))
            path = before + self._escaped(value) + rest.partition("}")[2]
        if self._random.random() < 0.05:
            path += self._random.choice(("/", "//", "/x", "%00", "%ff", "%", ";a=b", "/../../v2/samples"))
        pairs = (
            [
                f"{self._name(name)}={self._escaped(self._text())}"
                for name in self._random.choices(names, k=self._random.choice((0, 0, 1, 1, 2, 5)))
            ]
            if names
            else []
        )
        if self._random.random() < 0.05:
            pairs += [f"{self._escaped(self._text())}={self._escaped(self._text())}"] * self._random.choice((1, 3, 300))
        if any(name.startswith("q.") for name in names) and self._random.random() < 0.5:
            pairs += [f"q.field={self._random.choice(FIELDS)}", f"q.value={self._escaped(self._text())}"]
        separator = "&" if "?" in path else "?"
        return path + separator + "&".join(pairs) if pairs else path

    def _name(self, name: str) -> str:
        name = name.replace("*", self._random.choice(("size", "a.b", "")))
        return name.replace(".", f"[{self._random.randint(0, 3)}].", 1) if self._random.random() < 0.2 else name

    def _escaped(self, text: str) -> str:
        if self._random.random() < 0.03:
            return quote(self._bytes(6))
        return quote(text.encode("utf-8", "surrogatepass"), safe=self._random.choice(("", "/", "/'()*;:@$,")))

    def _text(self) -> str:
        if self._random.random() < 0.1:
            return base64.urlsafe_b64encode(json.dumps(self._json()).encode()[:300]).decode().rstrip("=")
        return self._random.choice(TEXTS)

    def _bytes(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randint(1, most))

    def _scalar(self) -> Any:
        return self._random.choice((None, True, False, self._random.choice(NUMBERS), self._text(), self._text()))

    def _json(self, depth: int = 3) -> Any:
        if depth == 0 or self._random.random() < 0.3:
            return self._scalar()
        size = self._random.randint(0, 3)
        if self._random.random() < 0.5:
            return [self._json(depth - 1) for _ in range(size)]
        return {self._text(): self._json(depth - 1) for _ in range(size)}

    def _expression(self, depth: int = 3) -> Any:
        word = self._random.choice(WORDS)
        if depth and word in ("and", "or"):
            return {word: [self._expression(depth - 1) for _ in range(self._random.randint(0, 3))]}
        if depth and word == "not":
            return {word: self._expression(depth - 1)}
        name = self._random.choice((*FIELDS, "metadata.display_name", self._text()))
        return {word: {name: [self._scalar()] * 2 if word == "in" else self._scalar()}}

    def _complex_query(self) -> Any:
        order = [{self._random.choice(FIELDS): self._random.choice(("asc", "desc", "up"))}]
        query = {"filter": json.dumps(self._expression()), "orderby": json.dumps(order), "limit": self._scalar()}
        return {name: query[name] for name in self._random.sample(sorted(query), self._random.randint(1, 3))}

    def _arguments(self) -> Any:
        term = {"field": self._random.choice(FIELDS), "op": self._text(), "value": self._scalar()}
        return {"q": [term] * self._random.choice((1, 2, 200)), "limit": self._scalar()}

    def _samples(self) -> Any:
        sample = {
            "counter_name": "apples",
            "counter_type": "gauge",
            "counter_unit": "apple",
            "counter_volume": self._random.choice((3, *NUMBERS)) if self._random.random() < 0.3 else 3,
            "resource_id": self._random.choice(("tree", "vm-rival-1", self._text())),
            "resource_metadata": {"a.b": "c"},
        }
        for _ in range(self._random.choice((0, 0, 1, 2))):
            names = (*sample, "timestamp", "project_id", "user_id", "source", "message_id", "recorded_at", "extra")
            sample[self._random.choice(names)] = self._json()
        return [sample] * self._random.choice((1, 1, 2, 50))

    def _request(
        self,
        number: int,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        sender: str = "",
        chunked: bool = False,
        certain: bool = True,
    ) -> HostileRequest:
        sender = sender or self._random.choices(("acme", "rival", "admin", "nobody"), (60, 15, 15, 10))[0]
        lines = {"Host": "127.0.0.1", "Connection": "close"}
        if sender != "nobody":
            lines["X-Auth-Token"] = token(sender)
        elif self._random.random() < 0.5:
            lines["X-Auth-Token"] = self._random.choice(("", "junk", "a" * 9000, token("acme")[:-1], "\u00e4"))
        if self._random.random() < 0.3:
            lines["Accept"] = self._random.choice(ACCEPTS)
        if body and chunked:
            lines["Transfer-Encoding"] = "chunked"
            half = len(body) // 2
            parts = [part for part in (body[:half], body[half:]) if part]
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        elif body:
            lines["Content-Length"] = str(len(body))
        lines |= headers or {}
        if headers and "X-Auth-Token" in headers:
            sender = "nobody"
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        content = head.encode("latin-1" if not certain else "utf-8", "replace") + b"\r\n" + body
        return HostileRequest(number, sender, (content,), certain and "\r" not in target, method)


def token(sender: str) -> str:
    """Return the token of a tenant, or of ``admin``."""
    return ADMIN if sender == "admin" else f"token-of-{sender}"


# --- the API under attack ---


@dataclass(frozen=True, slots=True)
class AttackedSite:
    """An API, and the collector that stores what is posted to it."""

    api: Daemon
    collector: Daemon


def attacked_site(house: House) -> AttackedSite:
    """Start an API with samples of each tenant, and a collector."""
    collector = house.daemon("meter-collector").start().until_ready()
    api = _api(house).start().until_ready()
    _store_samples(api)
    return AttackedSite(api, collector)


def _api(house: House) -> Daemon:
    """Return an API that is not started, with a token for each tenant and one for an administrator."""
    tokens = [f'[[api.auth.tokens]]\nsha256 = "{_sha256(ADMIN)}"\nadmin = true\n']
    tokens += [
        f'[[api.auth.tokens]]\nsha256 = "{_sha256(token(tenant))}"\nproject_id = "{tenant}"\nuser_id = "{tenant}"\n'
        for tenant in TENANTS
    ]
    settings = '[api]\naccept_samples = true\ncors_origins = ["https://dashboard.example.org"]\n'
    authentication = '[api.auth]\nmode = "tokens"\n' + "".join(tokens)
    return house.daemon("meter-api", authentication, base=BASE.replace("[api]\n", settings))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _store_samples(api: Daemon) -> None:
    """Store samples of each tenant, which contain its canary, also about a resource that both have."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for tenant, canary in CANARIES.items():
        samples = [
            {
                "counter_name": "cpu",
                "counter_type": "cumulative",
                "counter_unit": "ns",
                "counter_volume": n,
                "resource_id": ("shared-vm", f"vm-{tenant}-1", f"vm-{canary}")[n % 3],
                "project_id": tenant,
                "user_id": f"user-{canary}",
                "timestamp": utc_text(now - timedelta(hours=n % 600)),
                "resource_metadata": {"display_name": f"name-{canary}-{n % 5}", "size": str(n % 3)},
            }
            for n in range(SAMPLES_PER_TENANT)
        ]
        request = urllib.request.Request(
            f"{api.api}/v2/meters/cpu?direct=True",
            json.dumps(samples).encode(),
            {"Content-Type": "application/json", "X-Auth-Token": ADMIN},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            assert response.status == 201


def stored_samples(api: Daemon) -> dict[str, Any]:
    """Return all samples of the API by their ids, as an administrator sees them."""
    status, body = fetch(f"{api.api}/v2/samples", **{"X-Auth-Token": ADMIN, "Accept": "application/x-ndjson"})
    assert status == 200
    samples = [json.loads(line) for line in body.splitlines()]
    return {sample["id"]: sample for sample in samples}


def send(port: int, request: HostileRequest) -> bytes:
    """Send ``request`` and return what is received: a complete response, or as much as comes in time."""
    received = bytearray()
    deadline = time.monotonic() + ANSWER_SECONDS
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection, suppress(OSError):
        with suppress(OSError):  # the server has read enough; the response remains to be read
            for number, piece in enumerate(request.pieces):
                if number:
                    time.sleep(0.01)
                connection.sendall(piece)
        while len(received) < STREAM_BYTES and time.monotonic() < deadline:
            streaming = b"text/event-stream" in received[:1000]
            connection.settimeout(PATIENCE_SECONDS if streaming or not request.complete else ANSWER_SECONDS)
            data = connection.recv(65536)
            if not data:
                break
            received += data
    return bytes(received)


def judge(request: HostileRequest, received: bytes) -> str | None:
    """Return what is wrong with the response to ``request``, ``None`` if nothing is."""
    response = parse(received)
    if response.status == 0:
        return "no response" if request.complete or received else None
    for tenant, canary in CANARIES.items():
        if request.sender not in (tenant, "admin") and canary.encode() in received:
            return f"it shows samples of {tenant}"
    if response.status >= 500 and response.status != 503:
        return f"status {response.status}"
    if b"Traceback" in received or b"x-injected" in {name.encode() for name in response.headers}:
        return "a traceback or an injected header"
    if (
        response.headers.get("cache-control") != "no-store"
        or response.headers.get("x-content-type-options") != "nosniff"
    ):
        return "it could be cached or sniffed"
    return _problem_of_error(request, response) if response.status >= 400 else None


def _wants_page(request: HostileRequest) -> bool:
    """Return whether an error may be a page: the request is one of a browser, and not to the API."""
    head = b"".join(request.pieces).partition(b"\r\n\r\n")[0]
    target = [*head.split(b" ", 2), b""][1]
    return b"text/html" in head.lower() and not target.startswith(API_PATHS)


def _problem_of_error(request: HostileRequest, response: RawResponse) -> str | None:
    if response.headers.get("content-type", "").startswith("text/html") and _wants_page(request):
        return None
    if not response.headers.get("content-type", "").startswith("application/json"):
        return f"an error of type {response.headers.get('content-type')}"
    if request.method == "HEAD" and not response.body:
        return None
    try:
        content = json.loads(response.body)
    except ValueError:
        return "an error that is not JSON"
    return None if content.keys() & {"error", "error_message"} else "an error in no documented form"


# --- a run ---


@dataclass(slots=True)
class FuzzReport:
    """What became of the requests of a run: how many had which status (0: none), and the failures, for people."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(self.statuses.items()))
        return f"{self.sent} requests, statuses {counts}, {len(self.failures)} failures"


def attack(site: AttackedSite, count: int, seed: int, midway: Callable[[], None] = lambda: None) -> FuzzReport:
    """Send ``count`` requests made from ``seed`` to the API of ``site``; call ``midway`` after a tenth of them."""
    api = site.api
    status, document = fetch(f"{api.api}/openapi.json")
    assert status == 200
    before = stored_samples(api)
    log_lengths = {daemon: len(daemon.log) for daemon in (api, site.collector)}
    report = FuzzReport()

    def one(request: HostileRequest) -> None:
        try:
            received = send(api.api_port, request)
        except OSError as error:
            report.failures.append(f"{error}\n  {request}")
            return
        report.statuses[parse(received).status] += 1
        if problem := judge(request, received):
            report.failures.append(f"{problem}\n  {request}\n  {received[:600]!r}")

    requests = list(RequestGenerator(seed, json.loads(document)).requests(count))
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(one, requests[: count // 10]))
        midway()
        list(clients.map(one, requests[count // 10 :]))
    report.sent = count
    after = stored_samples(api)
    changed = [each for each in before if after.get(each) != before[each]]
    if changed:
        report.failures.append(f"{len(changed)} stored samples were changed or lost: {changed[:3]}")
    for daemon, length in log_lengths.items():
        log = daemon.log[length:]
        for word in ("Traceback", "Unhandled", "CRITICAL"):
            if word in log:
                report.failures.append(f"{word} in the log:\n{log[max(0, log.index(word) - 500) :][:3000]}")
        if fetch(f"http://127.0.0.1:{daemon.status_port}/healthz") != (200, b"ok\n"):
            report.failures.append(f"{daemon.name} is not healthy any more")
    return report
