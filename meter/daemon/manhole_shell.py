"""What someone inside the manhole can type, and what is shown: the shell of :mod:`meter.daemon.manhole`."""

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

GREETING = "help() lists what is here, ^D leaves\n"


class Plugins(Mapping[str, Decision]):
    """The decisions on a daemon's plugins by name, as of now; shown as a table."""

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


async def _polls_nothing(pollster: str) -> object:
    raise LookupError(f"this daemon does not poll, neither {pollster} nor anything else")


def namespace(
    *,
    status: Callable[[], str],
    config: str,
    pollsters: Callable[[], Iterable[Decision]] = tuple,
    listeners: Callable[[], Iterable[Decision]] = tuple,
    poll_now: Callable[[str], Awaitable[object]] = _polls_nothing,
) -> dict[str, object]:
    """Return what a manhole shows of its daemon.

    ``status()`` is a text for people; ``config`` the effective configuration, its secrets masked; ``poll_now(name)``
    polls one pollster out of turn.
    """
    words = {
        "status()": "what this daemon depends on, and whether it is there",
        "pollsters": "the pollsters, and what was decided on each; pollsters['cpu'] is one",
        "listeners": "the same for listeners",
        "poll_now('cpu')": "poll once now and show the samples; they are not sent",
        "config": "the effective configuration, secrets masked",
        "_": "the last result; coroutines and Deferreds are waited for",
    }

    def help_text() -> str:
        return "\n".join(f"{word:<16}  {meaning}" for word, meaning in words.items()) + "\n"

    return {
        "help": help_text,
        "status": status,
        "pollsters": Plugins(pollsters),
        "listeners": Plugins(listeners),
        "poll_now": poll_now,
        "config": config,
    }


class _Interpreter(ManholeInterpreter):
    """Shows results: awaited, texts of several lines as they are, everything else as Python writes it."""

    def __init__(self, shell: Shell, names: Mapping[str, object]) -> None:
        super().__init__(shell, {"__name__": "__console__", "exit": _leave, "quit": _leave, **names})
        self._shell = shell

    def runcode(self, *args: Any, **kwargs: Any) -> None:
        """Run what was typed; leaving is not an error of the daemon."""
        try:
            super().runcode(*args, **kwargs)
        except SystemExit:
            self._shell.handle_QUIT()

    def displayhook(self, obj: object) -> None:
        """Show the value of an expression, now or as soon as there is one."""
        if inspect.iscoroutine(obj):
            # Ours alone: nobody else will look at its failure.
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
            text = f"<{type(value).__name__} that cannot be shown: {error!r}>"
        self.write(text.rstrip("\n") + "\n", isAsync=later)


def _leave() -> None:
    """Leave, as ^D does. (The builtin of this name would close the daemon's own standard input.)"""
    raise SystemExit


class Shell(Manhole):
    """One session. It ends at ^D, and when its input ends and nothing is waited for any more."""

    def __init__(self, names: Mapping[str, object]) -> None:
        super().__init__()
        self._names = names
        self.waiting = InFlight()
        self.ended: Callable[[], object] = bool
        """Called when the shell is left, before the connection is closed."""

    def connectionMade(self) -> None:
        """Begin."""
        super().connectionMade()
        self.interpreter = _Interpreter(self, self._names)

    def terminalSize(self, width: int, height: int) -> None:
        """Greet: this is called once, and clears the screen."""
        super().terminalSize(width, height)
        self.addOutput(GREETING, True)

    def handle_QUIT(self) -> None:
        """Leave."""
        self.ended()
        super().handle_QUIT()

    def input_ended(self) -> None:
        """Leave as soon as the last result is shown."""
        self.waiting.idle().addCallback(lambda _: self.handle_QUIT())


class Session(TerminalSession):
    """What a client may ask of a session: a shell, with a terminal or without; no commands, no files, no forwarding."""

    width = 80
    height = 24

    def openShell(self, proto: Any) -> None:
        """Connect a shell to the client."""
        self._terminal = self.chainedProtocolFactory()
        self.transportFactory(proto, self._terminal, IConchUser(self.original), self.width, self.height)
        # Without an exit status the client reports an error.
        send_request = functools.partial(proto.session.conn.sendRequest, proto.session, b"exit-status")
        shell: Any = self._terminal.terminalProtocol
        shell.ended = functools.partial(send_request, struct.pack(">L", 0))

    def eofReceived(self) -> None:
        """Twisted's own raises ``NotImplementedError``; a client whose input comes from a pipe sends this."""
        shell: Any = self._terminal.terminalProtocol
        if shell is not None:
            shell.input_ended()

    def windowChanged(self, size: object) -> None:
        """Do nothing: lines are not broken to the width of the terminal. (Twisted's own raises.)"""
