"""How fast the pages of the dashboard are: on the server, over the wire, and until Chromium paints something.

The store is that of ``benchmarks.store_read``: 230 instances of 20 projects, 5 meters each, polled every 300 s, 30 days of them by
default: 10 million samples. One daemon, ``twistd meter-api``, answers on loopback. The server's time is that from the request to the last byte,
asked over one connection, after one request that is not counted; bytes are those of the page and of all that it loads, compressed as they
are sent; first paint is what Chromium reports of a fresh profile.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import re
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from benchmarks import measuring
from benchmarks.api import TOKEN
from benchmarks.api import daemons
from benchmarks.api import until_listening
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.store_read import ONE
from benchmarks.store_read import fill
from benchmarks.store_read import opened
from meter.daemon.services import sleep
from tests.browser.chromium import chromium

HTML = "text/html"

PAGES = {
    "overview": "/",
    "usage of a week by project": "/usage?meter=cpu&group=project&range=7d",
    "usage of 30 days by flavor": "/usage?meter=memory.usage&group=flavor&range=30d",
    "top resources of 30 days": "/top?meter=cpu&by=resource&range=30d",
    "resources": "/resources",
    "one resource": f"/resource?id={ONE}&range=7d",
    "completeness of projects": "/completeness?by=project&range=30d",
    "pipeline": "/pipeline",
    "prices": "/prices",
    "statements": "/statements",
    "query": "/query",
}
"""Paths of pages by what they show."""

LOADED = re.compile(r'(?:src|href)="(/static/[^"]+)"')
PAINT = "return performance.getEntriesByName('first-contentful-paint').map(each => each.startTime)[0]"


def fetched(connection: http.client.HTTPConnection, path: str) -> tuple[float, int, bytes]:
    """Return the milliseconds until the last byte, the bytes as they were sent, and the content."""
    begin = time.perf_counter()
    connection.request(
        "GET",
        path,
        headers={
            "X-Auth-Token": TOKEN,
            "Accept": "*/*" if path.startswith("/static/") else HTML,
            "Accept-Encoding": "gzip",
        },
    )
    answer = connection.getresponse()
    content = answer.read()
    took = (time.perf_counter() - begin) * 1e3
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status}: {content[:300]!r}")
    compressed = answer.getheader("content-encoding") == "gzip"
    return took, len(content), gzip.decompress(content) if compressed else content


def measure_pages(table: Table, report: Report, port: int, runs: int) -> None:
    """Ask for each page ``runs`` times."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for name, path in PAGES.items():
        _, size, content = fetched(connection, path)
        size += sum(fetched(connection, each)[1] for each in set(LOADED.findall(content.decode())))
        for milliseconds in [fetched(connection, path)[0] for _ in range(runs)]:
            table.add(f"{name}: server", milliseconds, "ms")
        table.add(f"{name}: over the wire", size / 1000, "kB")
        report.compare(f"the end of {path}", True, content.rstrip().endswith(b"</html>"))


def measure_paints(table: Table, port: int, paints: int, profiles: Path) -> None:
    """Open each page ``paints`` times, each time in a browser that has never been there."""
    for number, (name, path) in enumerate(PAGES.items()):
        for paint in range(paints):
            with chromium(f"http://127.0.0.1:{port}", profiles / f"{number}-{paint}") as browser:
                browser.driver.execute_cdp_cmd("Network.enable", {})
                browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"X-Auth-Token": TOKEN}})
                browser.open(path)
                browser.until("performance.getEntriesByName('first-contentful-paint').length")
                table.add(f"{name}: first paint", float(browser.driver.execute_script(PAINT)), "ms")


async def measure(reactor: Any, report: Report, title: str, dsn: str, options: argparse.Namespace) -> None:
    store = await opened(reactor, dsn, maintain=True)
    await fill(store, dsn, options.days, options.instances)
    await store.stopService()
    with measuring.directory() as directory:
        table = Table(title)
        with daemons(directory / "one", dsn, 1) as (port, processes):
            await until_listening(reactor, directory / "one", processes)
            await sleep(reactor, 2.0)  # it reads its tokens and prices
            await deferToThread(measure_pages, table, report, port, options.runs)
            report.table(table)
            paints = Table("in Chromium")
            await deferToThread(measure_paints, paints, port, options.paints, directory)
        report.table(paints)


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    if options.dsn:
        report.line(measuring.settings_of("as it is", options.dsn))
        await measure(reactor, report, "as it is", options.dsn, options)
        return
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, mode, server.dsn(), options)


def main() -> None:
    """Parse the command line and measure."""
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=9), "not-durable")
    parser.add_argument("--days", type=int, default=30, help="days of samples; 30 are 10 million")
    parser.add_argument("--instances", type=int, default=230)
    parser.add_argument("--dsn", default="", help="a database to fill, and keep, instead of a temporary server")
    parser.add_argument("--paints", type=int, default=1, help="how often a page is opened in Chromium (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
