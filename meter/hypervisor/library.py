"""The library: loading it, its event loop, and opening a connection."""

from __future__ import annotations

import functools
from threading import Lock
from threading import Thread
from typing import Any

from meter.interfaces import Unavailable

_starting = Lock()


def load_libvirt() -> Any:
    """Return the ``libvirt`` module; :class:`Unavailable` says how to install it."""
    try:
        import libvirt
    except ImportError as error:
        raise Unavailable("libvirt-python is not installed: pip install 'meter[compute]'") from error
    return libvirt


def open_read_only(uri: str) -> Any:
    """Return a ``libvirt.virConnect`` that cannot change anything. Call it in a thread: it may take for ever."""
    libvirt = load_libvirt()
    with _starting:
        _start_event_loop(libvirt)
    return libvirt.openReadOnly(uri)


@functools.cache
def _start_event_loop(libvirt: Any) -> None:
    """Run libvirt's own event loop in a thread for as long as the process lives: events and keep-alive come through it.

    It has to be there before the first connection, which is opened after ``twistd`` has forked.
    """
    # libvirt prints every error, though it raises it too.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    Thread(target=run, name="libvirt events", daemon=True).start()
