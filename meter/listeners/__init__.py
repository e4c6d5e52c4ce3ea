"""Listeners, which make samples from notifications: a folder per service, each with a README of its meters.

Modules of this package that hold providers of :class:`meter.interfaces.IListener` are plugins, found at start; other
distributions add theirs in a folder ``meter/listeners`` of their own, without an ``__init__.py``.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
