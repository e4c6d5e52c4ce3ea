"""Declarative REST pollsters: any JSON API becomes meters by description, in TOML or in Ceilometer's dynamic pollster YAML.

``docs/rest-pollsters.rst`` is for who writes them. :mod:`~meter.rest.definition` is one description,
:mod:`~meter.rest.files` reads a directory of them, :mod:`~meter.rest.pollster` asks, :mod:`~meter.rest.expressions`
reads values out of answers.
"""

from meter.rest.files import own_pollsters
from meter.rest.pollster import RestPollster

__all__ = ["RestPollster", "own_pollsters"]
