"""What a change costs: processor time per sample of the collector, the agent and all processes, and per notification, in two checkouts.

``python -m benchmarks.before_after CHECKOUT`` runs ``benchmarks.collector``, ``compute_cycle``, ``road`` and ``notifications`` of the
other checkout, which has its own ``.venv`` (``make dev``), and then those of this one, and so on. Processor time does not contain
waiting, and both checkouts have a turn in each run: the ratios are meaningful beside other work, although the figures vary.
The workload is that of each checkout's own benchmark; their sizes are given by the options.

The benchmarks compare what came out with what went in; here it is compared that all of them ended with exit code 0.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from twisted.internet.utils import getProcessOutputAndValue

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table

SAMPLES, DOMAINS, NOTIFICATIONS = 15_000, 200, 2_000
FIGURES = {
    "collector": ("collector's processor time", "sample"),
    "compute_cycle": ("cycle", "sample"),
    "road": ("broker to row, all processes", "sample"),
    "confirmed": ("to confirmed", "sample"),
    "notifications": ("its processor time", "notification"),
}
"""The line of each benchmark that is compared, and what it is the processor time of."""

CONFIRMED = Path(__file__).with_name("compute_cycle.py")
"""``confirmed`` is ``compute_cycle --confirmed`` of this checkout, with the code of each: an older one does not have it."""


def figure(name: str, output: str) -> float | None:
    """Return the median of the figure ``name`` in the ``output`` of a benchmark, ``None`` if it is not there."""
    found = re.search(rf"^{re.escape(name)}  +([\d ]+(?:\.\d+)?) \(", output, re.MULTILINE)
    return float(found[1].replace(" ", "")) if found else None


async def measured(reactor: Any, report: Report, checkout: Path, benchmark: str, arguments: list[str]) -> float | None:
    """Return the figure of ``benchmark``, run in ``checkout``."""
    python = checkout / ".venv/bin/python"
    program = [str(CONFIRMED)] if benchmark == "confirmed" else ["-m", f"benchmarks.{benchmark}"]
    output, errors, status = await getProcessOutputAndValue(
        str(python), [*program, *arguments], os.environ, str(checkout), reactor
    )
    report.compare(f"exit code of {benchmark} in {checkout}", 0, status)
    if status:
        report.line((output + errors).decode(errors="replace"))
    return figure(FIGURES[benchmark][0], output.decode())


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    if not (options.checkout / ".venv/bin/python").exists():
        raise measuring.NotInstalled(f"{options.checkout} has no .venv: run make dev there")
    stall = ["--stalled-seconds", str(options.stalled_seconds)]
    arguments = {
        "collector": ["--runs", "2", "--mode", "not-durable", "--samples", str(options.samples), *stall],
        "compute_cycle": ["--runs", "3", "--domains", str(options.domains)],
        "notifications": ["--runs", "2", "--notifications", str(options.notifications), *stall],
        "confirmed": ["--runs", "5", "--domains", str(options.domains), "--confirmed"],
        "road": ["--runs", "2", "--mode", "durable", "--samples", str(options.samples), *stall],
    }
    if options.instances:
        for name in ("collector", "road"):
            arguments[name] += ["--instances", str(options.instances)]
    table = Table("processor time")
    for _ in range(options.runs):
        for name in options.benchmarks:
            before, after = [
                await measured(reactor, report, checkout, name, arguments[name])
                for checkout in (options.checkout, measuring.ROOT)
            ]
            report.line(f"{name}: {before} before, {after} after")
            unit = f"µs of a core per {FIGURES[name][1]}"
            table.add(f"{name} before", before, unit)
            table.add(f"{name} after", after, unit, f"{name} before")
    report.table(table)


def main() -> None:
    parser = measuring.with_stall(measuring.parser(__doc__))
    parser.add_argument("checkout", type=Path, help="the checkout of Meter that is the baseline")
    parser.add_argument("--benchmarks", nargs="*", choices=FIGURES, default=list(FIGURES), help="which (all)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of a run of the collector (%(default)s)")
    parser.add_argument("--instances", type=int, help="that have samples in the collector's runs (5000)")
    parser.add_argument("--domains", type=int, default=DOMAINS, help="of the agent (%(default)s)")
    parser.add_argument("--notifications", type=int, default=NOTIFICATIONS, help="of a run (%(default)s)")
    options = parser.parse_args()
    options.checkout = options.checkout.absolute()
    measuring.run(benchmark, options)


if __name__ == "__main__":
    main()
