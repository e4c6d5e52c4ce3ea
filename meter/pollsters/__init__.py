"""Pollsters: every module or package in here is read at start, and so is what other distributions put beside it.

A distribution of your own needs the same directories, ``meter/pollsters/``, *without* an ``__init__.py`` in them.
``docs/write-a-pollster.rst`` shows how to write one.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
