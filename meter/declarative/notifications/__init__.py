"""Notification definitions: meters defined in TOML, or in Ceilometer's ``meters.yaml``, without code.

A file of definitions is one listener, :class:`DefinedListener`. The built-in files are in :mod:`meter.listeners`, beside
the listeners that need code; the operator's files are in a directory given in the configuration.
"""

from meter.declarative.notifications.definition import Definition
from meter.declarative.notifications.definition import DefinitionResult
from meter.declarative.notifications.files import DefinitionFile
from meter.declarative.notifications.files import read_definitions
from meter.declarative.notifications.listener import DefinedListener
from meter.declarative.notifications.listener import built_in
from meter.declarative.notifications.user_definitions import load_user_definitions
from meter.declarative.notifications.user_definitions import without_redefined_meters

__all__ = [
    "DefinedListener",
    "Definition",
    "DefinitionFile",
    "DefinitionResult",
    "built_in",
    "load_user_definitions",
    "read_definitions",
    "without_redefined_meters",
]
