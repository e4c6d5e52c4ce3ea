"""The fault of a primary and its synchronous standby, kept by Patroni: the primary's machine dies, and comes back as a standby.

Hours are finalized again and again meanwhile, also the one in progress, and an API answers questions.
"""

from __future__ import annotations

import time

from tests.chaos.final_hours import finalizing
from tests.chaos.site import NeverCame
from tests.chaos.site import Site
from tests.chaos.site import until
from tests.servers.patroni import PatroniCluster
from tests.system.daemons import Daemon
from tests.system.daemons import fetch

QUESTION = "/v2/meters?limit=1"


def primary_dies(site: Site) -> None:
    """Twice: each node is the primary that dies, and comes back when samples are stored by the other one."""
    cluster: PatroniCluster = site.postgresql
    api = site.house.daemon("meter-api").start().until_ready()
    until(lambda: _answers(api), "an answer of the API")
    with finalizing(site):
        for _ in range(2):
            before = cluster.primary()
            assert before is not None
            before.kill()
            began = time.monotonic()
            told = until(lambda: site.collector.reason("store"), "the collector to say that its database is away", 30)
            site.seconds_until_stored()
            stored = time.monotonic() - began
            until(lambda: _answers(api), "an answer of the API")
            answered = time.monotonic() - began
            site.notes.append(
                f"stored again {stored:.1f} s after the primary was killed; the API answered after {answered:.1f} s"
            )
            site.notes.append(f"the collector's /readyz meanwhile: {told}")
            if cluster.primary() in (None, before):
                raise NeverCame("the standby was not promoted")
            before.start()
            cluster.until_synchronous()
            site.collector.until_ready()
            api.until_ready()
            time.sleep(3)


def _answers(api: Daemon) -> bool:
    return fetch(api.api + QUESTION)[0] == 200
