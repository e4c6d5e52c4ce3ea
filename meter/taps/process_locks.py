"""What a polling daemon owns alone: its directory, its ports, and a spool that was filled for the broker it sends to."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

from meter.agent.destination import Destination
from meter.agent.destination import decoded
from meter.agent.destination import fingerprints
from meter.agent.spool import look_into
from meter.bus.amqp.url import broker_address
from meter.daemon.process_lock import ListenLock
from meter.daemon.process_lock import LockFile
from meter.daemon.process_lock import Taken
from meter.settings import Config
from meter.signature import Keyring

STORE = "[store] dsn"


def claimed(name: str, directories: Mapping[str, Path], listens: Mapping[str, str]) -> Iterator[LockFile | ListenLock]:
    """Yield locks on ``directories`` and on what it ``listens`` on, each by the setting that names it.

    :class:`~meter.daemon.process_lock.Taken` says what belongs to another process.
    """
    for setting, directory in directories.items():
        # Nobody else may look into a database's directory; daemons of several users may share a state_dir.
        mode = 0o700 if setting == STORE else 0o777
        yield LockFile(directory / f"{name}.lock", owner=name, setting=setting, mode=mode)
    for setting, listen in listens.items():
        if listen:
            yield ListenLock(listen, owner=name, setting=setting)


def destination(config: Config, keys: Keyring) -> Destination:
    """Return where this configuration sends spooled samples."""
    url = config.bus.url.get_secret_value()
    own_key = not config.signing.keys and config.signing.key is None
    prints = fingerprints(keys.keys)
    if url == "local:":
        return Destination("", 0, "", prints, own_key)
    address = broker_address(url)
    return Destination(address.host, address.port, address.vhost, prints, own_key)


def check_spool(path: Path, present: Destination) -> None:
    """Raise :class:`~meter.daemon.process_lock.Taken` if the spool at ``path`` holds samples for another destination."""
    waiting, text = look_into(path)
    before = decoded(text) if text else None
    if waiting and before is not None and (why := before.difference(present)):
        raise Taken(
            f"[spool] {path} holds {waiting} messages that were meant for {why}. To send them to"
            f" {present.described} with this daemon's keys, set send_to_new_destination = true under [spool] for one start;"
            " to keep them for where they were meant to go, move the file away"
        )
