"""Declarative REST pollsters, defined in TOML or in Ceilometer's YAML for dynamic pollsters.

``docs/rest-pollsters.rst`` describes the files.

- :mod:`~meter.declarative.rest.definition`: one definition.
- :mod:`~meter.declarative.rest.pollster`: the pollster of a definition.
- :mod:`~meter.declarative.rest.enrichment`: metadata from further requests.
- :mod:`~meter.declarative.rest.responses`, :mod:`~meter.declarative.rest.expressions`: values in responses.
"""

from meter.declarative.rest.pollster import RestPollster

__all__ = ["RestPollster"]
