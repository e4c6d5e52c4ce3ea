"""The fault campaign: known samples sent through real servers and daemons while faults are injected, then counted.

:mod:`tests.chaos.faults` says what is done, :mod:`tests.chaos.site` what is sent and how it is counted,
:mod:`tests.chaos.campaign` runs it all. ``make chaos`` starts it; docs/reliability.rst explains it.
"""
