"""Validation of plugins against their interfaces; tests of a plugin can use it too."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from zope.interface.exceptions import BrokenImplementation
from zope.interface.exceptions import BrokenMethodImplementation
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from meter.interfaces import Topic
from meter.sample import MeterDefinition

_ELEMENTS = {"meters": MeterDefinition, "topics": Topic, "event_types": str}
_ASYNC = ("enabled", "poll")


def plugin_problems(interface: Any, plugin: Any) -> list[str]:
    """Return a message per problem of ``plugin`` as a provider of ``interface``, a plugin interface."""
    if not interface.providedBy(plugin):
        name = interface.__name__
        return [f"{reprlib.repr(plugin)} does not provide {name}: decorate its class with @implementer({name})"]
    try:
        verifyObject(interface, plugin)
        return list(_wrong_values(interface, plugin))
    except Invalid as error:
        # Several problems come as one MultipleInvalid.
        return [_problem(each) for each in getattr(error, "exceptions", [error])]
    except Exception as error:
        # An attribute may be a property that raises any exception.
        return [f"validation failed: {one_line(error)}"]


def _problem(error: Exception) -> str:
    if isinstance(error, BrokenMethodImplementation):
        method = error.method
        return f"{method.getName()}() should be {method.getName()}{method.getSignatureString()}: {error.mess}"
    if isinstance(error, BrokenImplementation):
        signature = getattr(error.name, "getSignatureString", str)
        return f"{error.name.getName()}{signature()} is missing"
    return one_line(error)


def _wrong_values(interface: Any, plugin: Any) -> Iterator[str]:
    if not isinstance(plugin.name, str) or not plugin.name:
        yield f"name should be a text, not {plugin.name!r}"
    for name, expected in _ELEMENTS.items():
        value = getattr(plugin, name) if name in interface else (expected,)
        if name in interface and not (
            isinstance(value, tuple) and value and all(isinstance(each, expected) for each in value)
        ):
            yield f"{name} should be a tuple of {expected.__name__}, not {reprlib.repr(value)}"
    if plugin.options is not None and not isinstance(plugin.options, BaseModel):
        yield f"options should be None or an instance of a pydantic model, not {reprlib.repr(plugin.options)}"
    for name in _ASYNC:
        if name in interface and not inspect.iscoroutinefunction(inspect.unwrap(getattr(plugin, name))):
            yield f"{name}() should be async def"


def one_line(error: BaseException) -> str:
    """Return an error as one line of text: its type and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
