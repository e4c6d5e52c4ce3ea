"""Declarative REST pollsters: any JSON API becomes meters by description, in TOML or in Ceilometer's dynamic pollster YAML.

``docs/rest-pollsters.rst`` is for who writes them. :mod:`~meter.declarative.rest.definition` is one description,
:mod:`~meter.declarative.rest.files` reads a directory of them, :mod:`~meter.declarative.rest.pollster` asks, :mod:`~meter.declarative.rest.expressions`
reads values out of answers.
"""

from meter.declarative.rest.files import load_user_pollsters
from meter.declarative.rest.pollster import RestPollster

__all__ = ["RestPollster", "load_user_pollsters"]
