"""Faults of clocks, which libfaketime sets; and samples that are as old as the agent's clock says, and expire."""

from __future__ import annotations

import glob
import signal
from collections.abc import Callable

from tests.chaos.completeness import INTERVAL
from tests.chaos.completeness import polls_of
from tests.chaos.completeness import stored_times
from tests.chaos.site import Site
from tests.chaos.site import until
from tests.system.daemons import Daemon

FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")

STORED_OR_ROLLED_UP = """
SELECT EXISTS (
    SELECT FROM series JOIN meter ON meter.id = meter_id WHERE meter.name = 'chaos.steady'
    AND (EXISTS (SELECT FROM sample WHERE series_id = series.id) OR EXISTS (SELECT FROM rollup WHERE series_id = series.id))
)
"""


def clock_goes_back(site: Site) -> None:
    """By an hour, under the agent and the collector; both must send and store more within seconds."""
    _set_clocks(site, "-3600")
    before = len(site.polled()[0])
    until(lambda: len(site.polled()[0]) >= before + 500, "the agent to go on polling", 20)
    _set_clocks(site, "+0")


def _set_clocks(site: Site, offset: str) -> None:
    (site.directory / "clock").write_text(offset)


def with_a_clock_to_set(site: Site) -> None:
    _set_clocks(site, "+0")
    site.late = "some"
    for daemon in (site.agent, site.collector):
        _fake_clock(site, daemon)


def _fake_clock(site: Site, daemon: Daemon) -> None:
    daemon.extra_environment |= _fake(site)


def _fake(site: Site) -> dict[str, str]:
    return {
        "LD_PRELOAD": FAKETIME[0],
        "FAKETIME_TIMESTAMP_FILE": str(site.directory / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def behind(seconds: float) -> Callable[[Site], None]:
    """The agent's clock alone is so many seconds behind, from its start on."""

    def prepare(site: Site) -> None:
        _set_clocks(site, f"-{seconds:.0f}")
        _fake_clock(site, site.agent)
        site.late = "all"

    return prepare


def an_hour_ahead(site: Site) -> None:
    """The agent's clock alone is an hour ahead, from its start on; nothing is expected before that hour is over."""
    _set_clocks(site, "+3600")
    _fake_clock(site, site.agent)
    site.asking_environment = _fake(site)


def twenty_days_behind(site: Site) -> None:
    behind(20 * 86400)(site)
    site.late = "some"  # their counts expire with the samples
    site.pause.touch()
    site.kinds = site.kinds - {"chaos.polled"}


def samples_expire(site: Site) -> None:
    """What the agent measured twenty days ago is retained for 7 days."""
    until(lambda: len(polls_of(site)) >= 6, "some polls")
    site.end_agent(signal.SIGTERM)
    until(lambda: _stored_until(site, polls_of(site)[-1].at), "what was polled last")
    site.ledger_until = polls_of(site)[-1].at + INTERVAL / 2
    config = site.collector.config_file
    retention = "[store]\nretention_days = 7.0\nrollup_retention_days = 7.0\n"
    site.collector.stop()
    config.write_text(config.read_text().replace("[store]\n", retention))
    site.collector.start().until_ready()
    until(lambda: not site.postgresql.execute(STORED_OR_ROLLED_UP, site.dsn)[0][0], "samples to expire", 240)
    _set_clocks(site, "+0")
    site.pause.unlink()
    site.agent.start().until_ready()


def faketime_missing() -> str:
    return "" if FAKETIME else "needs libfaketime: apt-get install faketime"


def _stored_until(site: Site, last: float) -> bool:
    return last <= max((at for times in stored_times(site).values() for at in times), default=0.0) + 0.001
