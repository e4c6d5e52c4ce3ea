"""Pollsters of what exporters expose for Prometheus, defined in TOML.

``docs/exposition-pollsters.rst`` describes the files.

- :mod:`~meter.declarative.exposition.definition`: one definition.
- :mod:`~meter.declarative.exposition.exposition`: the metrics of a response that a definition names.
- :mod:`~meter.declarative.exposition.pollster`: the pollster of one URL of a definition.
"""

from meter.declarative.exposition.definition import ExpositionDefinition
from meter.declarative.exposition.pollster import ExpositionPollster
from meter.declarative.exposition.pollster import exposition_pollsters

__all__ = ["ExpositionDefinition", "ExpositionPollster", "exposition_pollsters"]
