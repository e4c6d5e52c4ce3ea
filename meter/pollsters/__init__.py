"""Pollsters: every module or package in this directory is loaded at start, including those of other distributions.

Another distribution installs its modules in ``meter/pollsters/`` too, *without* an ``__init__.py`` in ``meter/`` and
``meter/pollsters/``. ``docs/write-a-pollster.rst`` shows how to write one.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
