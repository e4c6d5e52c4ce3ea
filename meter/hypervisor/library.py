"""The libvirt library: loading it, running its event loop, opening a connection."""

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
        raise Unavailable("libvirt-python is not installed: pip install 'meter-cloud[compute]'") from error
    return libvirt


def open_read_only(uri: str) -> Any:
    """Return a read-only ``libvirt.virConnect``. Call it in a thread: it blocks, perhaps for ever."""
    libvirt = load_libvirt()
    with _starting:
        _start_event_loop(libvirt)
    return libvirt.openReadOnly(uri)


@functools.cache
def _start_event_loop(libvirt: Any) -> None:
    """Run libvirt's default event loop, which delivers events and keep-alives, in a thread until the process ends.

    It must run before the first connection is opened, and ``twistd`` must have forked before.
    """
    # By default libvirt prints every error to stderr, besides raising it.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    Thread(target=run, name="libvirt events", daemon=True).start()
