"""The shell of :mod:`meter.daemon.manhole`: its namespace, and how results are shown."""

from __future__ import annotations

import functools
import inspect
import struct
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from twisted.conch.interfaces import IConchUser
from twisted.conch.manhole import Manhole
from twisted.conch.manhole import ManholeInterpreter
from twisted.conch.manhole_ssh import TerminalSession
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from meter.daemon.services import InFlight
from meter.plugins.registry import Decision
from meter.plugins.registry import report

GREETING = "help() lists the names, ^D logs out\n"


class Plugins(Mapping[str, Decision]):
    """The current decisions on the plugins of a daemon, by name; ``repr`` is a table."""

    def __init__(self, decisions: Callable[[], Iterable[Decision]]) -> None:
        self._decisions = decisions

    def __getitem__(self, name: str) -> Decision:
        return {decision.name: decision for decision in self._decisions()}[name]

    def __iter__(self) -> Iterator[str]:
        return iter([decision.name for decision in self._decisions()])

    def __len__(self) -> int:
        return len(list(self._decisions()))

    def __repr__(self) -> str:
        return report(self._decisions())


class ShownText:
    """A text that is made when it is shown: what it tells may change while the daemon runs."""

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    def __repr__(self) -> str:
        return self._make()


async def _no_pollsters(pollster: str) -> object:
    raise LookupError(f"this daemon does not poll: no pollster {pollster}")


def namespace(
    *,
    status: Callable[[], str],
    config: Callable[[], str],
    pollsters: Callable[[], Iterable[Decision]] = tuple,
    listeners: Callable[[], Iterable[Decision]] = tuple,
    poll_now: Callable[[str], Awaitable[object]] = _no_pollsters,
) -> dict[str, object]:
    """Return the names that a manhole session offers.

    ``status()`` is text; ``config`` the effective configuration with secrets masked; ``poll_now(name)`` polls one
    pollster at once.
    """
    words = {
        "status()": "the dependencies of this daemon and their readiness",
        "pollsters": "the pollsters and whether each is active; pollsters['cpu'] is one",
        "listeners": "the same for listeners",
        "poll_now('cpu')": "poll once now and show the samples without sending them",
        "config": "the effective configuration, secrets masked",
        "_": "the last result; coroutines and Deferreds are awaited",
    }

    def help_text() -> str:
        return "\n".join(f"{word:<16}  {meaning}" for word, meaning in words.items()) + "\n"

    return {
        "help": help_text,
        "status": status,
        "pollsters": Plugins(pollsters),
        "listeners": Plugins(listeners),
        "poll_now": poll_now,
        "config": ShownText(config),
    }


class _Interpreter(ManholeInterpreter):
    """Shows results: awaitables once they have one, multi-line text unchanged, anything else as its ``repr``."""

    def __init__(self, shell: Shell, names: Mapping[str, object]) -> None:
        super().__init__(shell, {"__name__": "__console__", "exit": _logout, "quit": _logout, **names})
        self._shell = shell

    def runcode(self, *args: Any, **kwargs: Any) -> None:
        """Run the input; ``exit()`` logs out instead of raising in the daemon."""
        try:
            super().runcode(*args, **kwargs)
        except SystemExit:
            self._shell.handle_QUIT()

    def displayhook(self, obj: object) -> None:
        """Show the value of an expression, now or when it is awaited."""
        if inspect.iscoroutine(obj):
            # Only this shell has the Deferred, so it must consume the failure.
            self._wait(Deferred.fromCoroutine(obj)).addErrback(lambda _: None)
        elif isinstance(obj, Deferred):
            self._wait(obj)
        else:
            self._show(obj)

    def _wait(self, result: Deferred[Any]) -> Deferred[Any]:
        at_once = True
        self._shell.waiting.__enter__()

        def show(value: Any) -> Any:
            if isinstance(value, Failure):
                self.write(f"{type(value.value).__name__}: {value.value}\n", isAsync=not at_once)
            else:
                self._show(value, later=not at_once)
            self._shell.waiting.__exit__()
            return value

        result.addBoth(show)
        at_once = False
        return result

    def _show(self, value: object, later: bool = False) -> None:
        self.locals["_"] = value
        if value is None:
            return
        try:
            text = value if isinstance(value, str) and "\n" in value else repr(value)
        except Exception as error:
            text = f"<{type(value).__name__} whose repr() failed: {error!r}>"
        self.write(text.rstrip("\n") + "\n", isAsync=later)


def _logout() -> None:
    """Log out, as ^D does. (The builtin would close the daemon's standard input.)"""
    raise SystemExit


class Shell(Manhole):
    """One session. It ends at ^D, and at the end of its input once all results are shown."""

    def __init__(self, names: Mapping[str, object]) -> None:
        super().__init__()
        self._names = names
        self.waiting = InFlight()
        self.ended: Callable[[], object] = bool
        """Called at logout, before the connection is closed."""

    def connectionMade(self) -> None:
        """Create the interpreter."""
        super().connectionMade()
        self.interpreter = _Interpreter(self, self._names)

    def terminalSize(self, width: int, height: int) -> None:
        """Show the greeting: Twisted calls this once, and it clears the screen."""
        super().terminalSize(width, height)
        self.addOutput(GREETING, True)

    def handle_QUIT(self) -> None:
        """Log out."""
        self.ended()
        super().handle_QUIT()

    def input_ended(self) -> None:
        """Log out once the last result is shown."""
        self.waiting.idle().addCallback(lambda _: self.handle_QUIT())


class ManholeSession(TerminalSession):
    """An SSH session: a shell with or without a terminal; no commands, no file transfer, no forwarding."""

    width = 80
    height = 24

    def openShell(self, proto: Any) -> None:
        """Start a shell for the client."""
        self._terminal = self.chainedProtocolFactory()
        self.transportFactory(proto, self._terminal, IConchUser(self.original), self.width, self.height)
        # Without an exit status the client reports an error.
        send_request = functools.partial(proto.session.conn.sendRequest, proto.session, b"exit-status")
        shell: Any = self._terminal.terminalProtocol
        shell.ended = functools.partial(send_request, struct.pack(">L", 0))

    def eofReceived(self) -> None:
        """End the input, as a client with a pipe does; Twisted's own raises ``NotImplementedError``."""
        shell: Any = self._terminal.terminalProtocol
        if shell is not None:
            shell.input_ended()

    def windowChanged(self, size: object) -> None:
        """Do nothing: lines are not wrapped. (Twisted's own raises.)"""
