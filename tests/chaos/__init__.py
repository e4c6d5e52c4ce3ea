"""The fault campaign: known samples sent through real servers and daemons while faults are injected, then counted.

:mod:`tests.chaos.faults` says what is done, :mod:`tests.chaos.site` what is sent and how it is counted,
:mod:`tests.chaos.campaign` runs it all. ``make chaos`` starts it; docs/reliability.rst explains it.
"""

from __future__ import annotations

from pathlib import Path

LEDGER = Path(__file__).with_name("ledger")
"""A distribution with the plugin that writes down each sample that a daemon made, to be put on PYTHONPATH."""
