"""Definitions: meters made from notifications by description, in TOML or in Ceilometer's ``meters.yaml``, without code.

A file of definitions is one listener, :class:`DefinedListener`. The built-in ones lie in :mod:`meter.listeners` beside
what cannot be described; an operator's own lie in a directory that the configuration names.
"""

from meter.definitions.definition import Definition
from meter.definitions.definition import Outcome
from meter.definitions.files import DefinitionFile
from meter.definitions.files import read_definitions
from meter.definitions.listener import DefinedListener
from meter.definitions.listener import built_in
from meter.definitions.own import overridden
from meter.definitions.own import own_definitions

__all__ = [
    "DefinedListener",
    "Definition",
    "DefinitionFile",
    "Outcome",
    "built_in",
    "overridden",
    "own_definitions",
    "read_definitions",
]
