"""The pages that the browser tests open, by what they show."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from tests.browser.demo_site import DemoSite
from tests.demo_cloud import WEB


def paths(site: DemoSite, *, admin: bool) -> Mapping[str, str]:
    """Return the path of each page that an administrator can open, or a tenant, the web shop."""
    guest = next(each for each in site.cloud.guests if each.project == WEB)
    shown = {
        "overview": "/",
        "usage": "/usage?meter=cpu&group=resource&range=7d",
        "usage-by-flavor": "/usage?meter=memory.usage&group=flavor&range=24h",
        "top": "/top?meter=cpu&by=resource&range=7d",
        "resources": "/resources",
        "resource": f"/resource?id={guest.id}&range=7d",
        "completeness": "/completeness?by=project&range=7d",
        "statements": "/statements",
        "prices": "/prices",
        "query": "/query",
        "not-found": f"/resource?id={quote('no such resource')}",
    }
    if admin:
        shown |= {
            "usage": "/usage?meter=cpu&group=project&range=7d",
            "top": "/top?meter=cpu&by=project&range=7d",
            "hosts": "/completeness?by=agent&range=24h",
            "pipeline": "/pipeline",
            "dead-letters": "/pipeline/dead-letters",
        }
    return shown
