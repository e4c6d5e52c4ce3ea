"""A WSGI application from another virtual environment, as a quiet server with a thread for each connection."""

from __future__ import annotations

_SERVER = """
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True
class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass
"""
_FOR_EVER = 'make_server("127.0.0.1", port, application, Threaded, Quiet).serve_forever()\n'


def serving(application: str) -> str:
    """Return the program that serves on ``port``. ``application`` are the lines that set ``application`` and ``port``."""
    return _SERVER + application + _FOR_EVER
