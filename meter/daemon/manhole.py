"""The manhole: a Python shell inside the running daemon, over SSH, for holders of an authorized key.

A session has all rights of the daemon. Therefore it listens on loopback or a UNIX socket only, supports neither
passwords nor forwarding, reads its host key and the authorized keys from files that no other user may write, and is
disabled unless ``[manhole] listen`` is set. Input runs in the reactor thread: a long expression blocks the daemon.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.application.service import MultiService
from twisted.conch.checkers import InMemorySSHKeyDB
from twisted.conch.checkers import SSHPublicKeyChecker
from twisted.conch.error import ValidPublicKey
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole_ssh import TerminalRealm
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import BadKeyError
from twisted.conch.ssh.keys import EncryptedKeyError
from twisted.conch.ssh.keys import FingerprintFormats
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import DISCONNECT_BY_APPLICATION
from twisted.conch.ssh.transport import SSHServerTransport
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.portal import IRealm
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meter.daemon.manhole_shell import ManholeSession
from meter.daemon.manhole_shell import Shell
from meter.daemon.manhole_shell import namespace
from meter.daemon.ports import Port

__all__ = ["manhole", "namespace", "problems"]

USER = b"meter"
"""The only user name; users are identified by their keys."""

LOGIN_SECONDS = 60
LOGIN_ATTEMPTS = 6


# --- validation of the settings ------------------------------------------------------------------------------------


def problems(listen: str, host_key_file: str, authorized_keys_file: str) -> list[str]:
    """Return a text for each setting with which the manhole would be unsafe; nothing is opened."""
    _, wrong_host_key = _host_key(host_key_file)
    _, wrong_keys = _authorized_keys(authorized_keys_file)
    return [
        *(f"[manhole] listen: {text}" for text in _unsafe_endpoint(listen)),
        *(f"[manhole] host_key_file: {text}" for text in wrong_host_key),
        *(f"[manhole] authorized_keys_file: {text}" for text in wrong_keys),
    ]


def _unsafe_endpoint(listen: str) -> Iterator[str]:
    kind, *arguments = (part.replace("\\:", ":") for part in re.split(r"(?<!\\):", listen))
    given = [argument.partition("=") for argument in arguments]
    interfaces = [value for name, _, value in given if name == "interface"]
    modes = [value for name, _, value in given if name == "mode"]
    if kind == "unix":
        if not modes or not all(re.fullmatch(r"[0-7]*[0-7][0-7]0", mode) for mode in modes):
            yield f"{listen!r} allows every user of this host to connect; add :mode=600"
    elif kind not in ("tcp", "tcp6") or not interfaces or not all(map(_is_loopback, interfaces)):
        yield f"{listen!r} can be reached from other hosts; use tcp:8778:interface=127.0.0.1 or unix:PATH:mode=600"
    try:
        serverFromString(object(), listen)
    except Exception as error:
        # The parsers of endpoints may raise any exception.
        yield f"{listen!r} is not an endpoint ({type(error).__name__}: {error})"


def _is_loopback(interface: str) -> bool:
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return False


def _host_key(path: str) -> tuple[Any, list[str]]:
    """Return the private key in the file, and its problems."""
    advice = f"create one with: ssh-keygen -t ed25519 -N '' -f {path}"
    try:
        if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return None, [f"{path} is accessible to other users; fix that with: chmod 600 {path}"]
        key = Key.fromFile(path)
    except OSError as error:
        return None, [f"{path}: {error.strerror}; {advice}"]
    except EncryptedKeyError:
        return None, [f"{path} has a passphrase, which a daemon cannot enter; {advice}"]
    except (BadKeyError, ValueError):
        return None, [f"{path} is not a private key; {advice}"]
    return (None, [f"{path} is a public key; the private key is needed"]) if key.isPublic() else (key, [])


def _authorized_keys(path: str) -> tuple[list[tuple[Any, str]], list[str]]:
    """Return the public keys in the file with their comments, and its problems."""
    keys, wrong = [], []
    try:
        if os.stat(path).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            wrong.append(f"{path} is writable by other users; fix that with: chmod go-w {path}")
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        return [], [f"{path}: {error.strerror}"]
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            key = Key.fromString(line.strip())
        except Exception:
            # The parser may raise any exception for a damaged line.
            wrong.append(f"{path}, line {number}: not a public key without options: ssh-ed25519 AAAA… comment")
        else:
            keys.append((key, b" ".join(line.split()[2:]).decode(errors="replace")))
    return keys, wrong if keys or wrong else [f"{path} contains no key: nobody could log in"]


# --- authentication ------------------------------------------------------------------------------------------------


class AuthorizedKeysChecker(SSHPublicKeyChecker):
    """Authenticates holders of the authorized keys, and identifies them by comment and fingerprint."""

    _log = Logger()

    def __init__(self, keys: Iterable[tuple[Any, str]]) -> None:
        self._comments = {key.blob(): comment for key, comment in keys}
        super().__init__(InMemorySSHKeyDB({USER: [key for key, _ in keys]}))

    def requestAvatarId(self, credentials: Any) -> Deferred[str]:
        """Fire with comment and fingerprint of the key; fail for a key that is not authorized."""
        user = self._known(credentials.blob)
        deferred: Deferred[Any] = super().requestAvatarId(credentials)
        return deferred.addCallbacks(lambda _: user, self._refuse, errbackArgs=(user,))

    def _known(self, blob: bytes) -> str:
        fingerprint = Key.fromString(blob).fingerprint(FingerprintFormats.SHA256_BASE64).rstrip("=")
        return f"{self._comments.get(blob, '')} SHA256:{fingerprint}".strip()

    def _refuse(self, failure: Failure, user: str) -> Failure:
        if not failure.check(ValidPublicKey):
            self._log.warn("manhole: login refused for {user}", user=user)
        return failure


@implementer(IRealm)
class _Realm(TerminalRealm):
    """Creates the sessions of authenticated users, and logs logins and logouts."""

    _log = Logger()

    def __init__(self, names: Mapping[str, object]) -> None:
        super().__init__()
        self.sessionFactory = ManholeSession
        self.chainedProtocolFactory: Any = functools.partial(ServerProtocol, Shell, names)

    def requestAvatar(self, avatar_id: Any, mind: object, *interfaces: Any) -> Any:
        """Create the session of ``avatar_id``."""
        interface, avatar, _ = super().requestAvatar(avatar_id, mind, *interfaces)
        self._log.warn("manhole: {user} logged in", user=avatar_id)
        return interface, avatar, lambda: self._log.warn("manhole: {user} logged out", user=avatar_id)


class _UserAuth(SSHUserAuthServer):
    """Time and attempts to log in; Twisted's defaults are ten hours and 20 attempts."""

    loginTimeout = LOGIN_SECONDS  # noqa: N815
    attemptsBeforeDisconnect = LOGIN_ATTEMPTS  # noqa: N815


class _Transport(SSHServerTransport):
    """One connection, aborted if it is not authenticated within LOGIN_SECONDS: idle connections must not accumulate."""

    factory: _Factory
    transport: Any
    _limit: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the login timeout."""
        super().connectionMade()
        self.factory.connections.add(self)
        self._limit = self.factory.clock.callLater(LOGIN_SECONDS, self._login_timed_out)

    def _login_timed_out(self) -> None:
        self._limit = None
        if not hasattr(self, "avatar"):
            self.transport.abortConnection()

    def receiveError(self, reason_code: int, description: bytes) -> None:
        """Do not log a normal disconnect as an error, as Twisted does."""
        if reason_code != DISCONNECT_BY_APPLICATION:
            super().receiveError(reason_code, description)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Cancel the login timeout."""
        self.factory.connections.discard(self)
        if self._limit is not None:
            self._limit.cancel()
        super().connectionLost(reason)


class _Factory(SSHFactory):
    """Has its keys on the instance: on ``SSHFactory`` they are dictionaries shared by all instances."""

    protocol = _Transport
    noisy = False

    def __init__(self, portal: Portal, host_key: Any, clock: Any) -> None:
        self.portal = portal
        self.services = {**SSHFactory.services, b"ssh-userauth": _UserAuth}
        self.publicKeys = {host_key.sshType(): host_key.public()}
        self.privateKeys = {host_key.sshType(): host_key}
        self.clock = clock
        self.connections: set[_Transport] = set()

    def stopFactory(self) -> None:
        """Close the sessions that are open when the port is closed."""
        for connection in list(self.connections):
            connection.transport.loseConnection()


def manhole(
    reactor: Any, listen: str, host_key_file: str, authorized_keys_file: str, names: Mapping[str, object]
) -> IService:
    """Return the service that listens on ``listen`` and offers ``names`` in its sessions, see :func:`namespace`.

    While the address is in use it retries. Raises ``ValueError`` with a line for each of :func:`problems`.
    """
    wrong = problems(listen, host_key_file, authorized_keys_file)
    if wrong:
        raise ValueError("\n".join(wrong))
    host_key, _ = _host_key(host_key_file)
    keys, _ = _authorized_keys(authorized_keys_file)
    factory = _Factory(Portal(_Realm(names), [AuthorizedKeysChecker(keys)]), host_key, reactor)
    advice = "; set another endpoint for this daemon in [manhole.by_daemon]"
    # Wrapped in a service that is not an IDependency: a manhole that cannot listen must not affect readiness.
    service = MultiService()
    service.setName("manhole")
    Port(listen, factory, name="manhole", reactor=reactor, clock=reactor, advice=advice).setServiceParent(service)
    return service
