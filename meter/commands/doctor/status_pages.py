"""The check *status pages*: what the daemons of this host say of themselves in ``/readyz``."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from meter.commands.doctor.finding import Finding
from meter.commands.doctor.finding import Level
from meter.settings import Config


def status_urls(config: Config) -> dict[str, str]:
    """Return the URLs of ``/readyz`` of the daemons of this host, as far as they listen on TCP ports, by what is configured."""
    listens = {"[status] listen": config.status.listen}
    listens |= {f"{name}, [status.by_daemon]": listen for name, listen in config.status.by_daemon.items()}
    urls: dict[str, str] = {}
    scheme = "https" if config.status.tls.cert_file else "http"
    for name, listen in listens.items():
        if (url := status_url(listen, scheme)) and url not in urls.values():
            urls[name] = url
    return urls


def status_url(listen: str, scheme: str = "http") -> str | None:
    """Return the URL of ``/readyz`` at a Twisted endpoint of TCP, ``None`` for any other endpoint."""
    match = re.match(r"tcp6?:(?:port=)?(\d+)(?=:|$)", listen)
    if match is None:
        return None
    interface = re.search(r":interface=((?:\\.|[^:\\])*)", listen)
    host = interface[1].replace("\\:", ":") if interface else "127.0.0.1"
    if host in ("", "0.0.0.0", "::"):
        host = "::1" if listen.startswith("tcp6") else "127.0.0.1"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{match[1]}/readyz"


def fetched(url: str) -> Any:
    """Return the JSON at ``url`` on this host; it blocks, and raises ``OSError`` or ``ValueError``."""
    # The certificate names this host, not the loopback address that is asked; nothing secret is sent.
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
    )
    try:
        with opener.open(url, timeout=5) as answer:
            return json.loads(answer.read(1_000_000))
    except urllib.error.HTTPError as error:  # 503 is an answer: not ready
        return json.loads(error.read(1_000_000))


def status_finding(name: str, url: str, answer: Any) -> Finding:
    """Return what the answer of ``/readyz`` at ``url`` says."""
    dependencies = answer.get("dependencies") if isinstance(answer, Mapping) else None
    if not isinstance(dependencies, list):
        return Finding("status pages", "warning", f"{name}, {url}: another program answers", "correct [status] listen")
    wrong = [
        f"{each.get('name')}: {each.get('reason')}"
        for each in dependencies
        if isinstance(each, Mapping) and not each.get("ready")
    ]
    if not wrong:
        return Finding("status pages", "ok", f"{name}, {url}: ready")
    level: Level = "warning" if answer.get("ready") else "fault"
    state = "degraded" if answer.get("ready") else "not ready"
    advice = "the daemon goes on by itself once that is mended; its log has more"
    return Finding("status pages", level, f"{name}, {url}: {state}: {'; '.join(wrong)}", advice)
