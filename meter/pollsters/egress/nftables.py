"""The program ``nft``, which reads and changes the table. It runs in a thread, with limits of time and of output."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from contextlib import suppress
from threading import Timer
from typing import Any
from typing import TypeVar

import msgspec
from twisted.internet.threads import deferToThread

from meter.pollsters.egress.listing import TableListing
from meter.pollsters.egress.listing import UnexpectedListing
from meter.pollsters.egress.listing import read_listing
from meter.pollsters.egress.ruleset import TABLE
from meter.pollsters.egress.ruleset import Command

SEARCH_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
TIMEOUT_SECONDS = 20.0
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""A thousand taps have some 4 MB, twice that if what they receive is counted, too."""

MAX_ERROR_CHARACTERS = 300

T = TypeVar("T")

InThread = Callable[..., Awaitable[Any]]
"""Calls a function with arguments in another thread, as :func:`twisted.internet.threads.deferToThread` does."""


class NftFailed(Exception):
    """``nft`` could not do what it was told; the text says why. Of a list of commands, none has been done."""


class Nftables:
    """Meter's table in the nftables of this host; ``command`` runs the program."""

    def __init__(
        self,
        command: Sequence[str] = ("nft",),
        *,
        in_thread: InThread = deferToThread,
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        self._command = tuple(command)
        self._in_thread = in_thread
        self._timeout_seconds = timeout_seconds
        self._max_output_bytes = max_output_bytes

    async def listing(self) -> TableListing:
        """Return what is in the table, nothing if there is none; raise :class:`NftFailed`."""
        found: TableListing = await self._in_thread(self._list)
        return found

    async def change(self, commands: Iterable[Command]) -> None:
        """Do all ``commands`` or, raising :class:`NftFailed`, none."""
        await self._in_thread(self._do, ["-j", "-f", "-"], commands)

    async def check(self, commands: Iterable[Command]) -> None:
        """Raise :class:`NftFailed` if the commands could not be done; change nothing."""
        await self._in_thread(self._do, ["-c", "-j", "-f", "-"], commands)

    async def compute(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return the result of ``function``, which may take long for a large table, from the thread."""
        result: T = await self._in_thread(function, *arguments)
        return result

    def _do(self, arguments: Sequence[str], commands: Iterable[Command]) -> None:
        self._run(arguments, msgspec.json.encode({"nftables": list(commands)}))

    def _list(self) -> TableListing:
        try:
            return read_listing(self._run(["-j", "list", "table", "netdev", TABLE]))
        except UnexpectedListing as error:
            raise NftFailed(str(error)) from None
        except NftFailed as error:
            if "No such file or directory" in str(error):
                return TableListing()
            raise

    def _run(self, arguments: Sequence[str], stdin: bytes = b"") -> bytes:
        """Run the program and return what it wrote. Files, not pipes, so that neither side waits for the other."""
        program = shutil.which(self._command[0], path=SEARCH_PATH)
        if program is None:
            raise NftFailed("the program nft is not installed (package nftables)")
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                [program, *self._command[1:], *arguments],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
            timer = Timer(self._timeout_seconds, _kill, [process])
            timer.daemon = True
            timer.start()
            try:
                assert process.stdout is not None
                with process.stdout:
                    output = process.stdout.read(self._max_output_bytes + 1)
                if len(output) > self._max_output_bytes:
                    _kill(process)
                status = process.wait()
            finally:
                expired = not timer.is_alive()
                timer.cancel()
            if len(output) > self._max_output_bytes:
                raise NftFailed(f"nft has written more than {self._max_output_bytes} bytes")
            if expired and status:
                raise NftFailed(f"nft has not ended within {self._timeout_seconds:g} s")
            if status:
                errors.seek(0)
                raise NftFailed(_reason(errors.read(10_000).decode("utf-8", "replace"), status))
            return bytes(output)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it has started, which may hold its output open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(text: str, status: int) -> str:
    """Return the first error of ``nft``, whose text repeats the commands below each."""
    if "Operation not permitted" in text:
        return "nft is not permitted to use nftables: it needs the capability CAP_NET_ADMIN (docs/egress.rst)"
    first = next((line for line in text.splitlines() if "Error:" in line), text.strip().partition("\n")[0])
    return first.partition("Error:")[2].strip()[:MAX_ERROR_CHARACTERS] or f"nft has ended with status {status}: {first}"
