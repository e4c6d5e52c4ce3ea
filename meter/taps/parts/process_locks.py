"""Exclusive resources of a daemon: its state directory and ports, and a spool that belongs to one broker and key."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

from meter.agent.destination import Destination
from meter.agent.destination import decoded
from meter.agent.destination import encoded
from meter.agent.destination import fingerprints
from meter.agent.spool_inspection import inspect_spool
from meter.bus.amqp.hosts import broker_addresses
from meter.daemon.private_files import open_to_others
from meter.daemon.private_files import unwritable
from meter.daemon.process_lock import AlreadyLocked
from meter.daemon.process_lock import ListenLock
from meter.daemon.process_lock import LockFile
from meter.settings import Config
from meter.signing_keys import Keyring
from meter.taps.daemon import Daemon


def claimed(name: str, directories: Mapping[str, Path], listens: Mapping[str, str]) -> Iterator[LockFile | ListenLock]:
    """Yield locks on ``directories`` and on the addresses in ``listens``, both by the setting that names them.

    Raises :class:`~meter.daemon.process_lock.AlreadyLocked` for a resource that another process holds.
    """
    for setting, directory in directories.items():
        yield LockFile(directory / f"{name}.lock", owner=name, setting=setting)
    for setting, listen in listens.items():
        if listen:
            yield ListenLock(listen, owner=name, setting=setting)


def destination(config: Config, keys: Keyring) -> Destination:
    """Return the broker and keys that this configuration sends spooled samples to."""
    url = config.bus.url.get_secret_value()
    own_key = not config.signing.keys and config.signing.key is None
    prints = fingerprints(keys.keys)
    if url == "local:":
        return Destination("", 0, "", prints, own_key)
    address = broker_addresses(url)[0]  # its port and virtual host are those of all
    return Destination(address.host, address.port, address.vhost, prints, own_key)


def check_spool(path: Path, present: Destination) -> None:
    """Raise :class:`~meter.daemon.process_lock.AlreadyLocked` if the spool at ``path`` holds samples for another destination."""
    messages, text = inspect_spool(path)
    before = decoded(text) if text else None
    if messages and before is not None and (why := before.difference(present)):
        raise AlreadyLocked(
            f"[spool] {path} holds {messages} messages for another destination: {why}. To send them to"
            f" {present.described} with this daemon's keys, set send_to_new_destination = true under [spool] for one start;"
            " to keep them for their destination, move the file away"
        )


def lock_resources(daemon: Daemon, directories: Mapping[str, Path], listens: Mapping[str, str]) -> None:
    """Lock ``directories`` and the addresses that this daemon listens on, before any part of it starts.

    Both are given by setting. Raises :class:`AlreadyLocked` if another process holds one of them.
    """
    if warning := open_to_others(daemon.state_dir):
        daemon.warnings.append(f"[meter] state_dir: {warning}")
    if daemon.only_checking:
        for setting, directory in {"[meter] state_dir": daemon.state_dir, **directories}.items():
            if problem := unwritable(directory):
                daemon.problems.append(f"{setting}: {problem}")
        return
    everything = {"[status] listen": daemon.listen_address("status"), **listens}
    for lock in claimed(daemon.name, {"[meter] state_dir": daemon.state_dir, **directories}, everything):
        daemon.locks.append(lock)
        if isinstance(lock, LockFile):
            lock.setServiceParent(daemon.root)


def spool_destination(daemon: Daemon, spool: Path) -> str:
    """Return the destination of spooled samples. Raises :class:`AlreadyLocked` if ``spool`` holds samples for another one."""
    present = destination(daemon.config, daemon.keys)
    if not (daemon.only_checking or daemon.config.spool.send_to_new_destination):
        check_spool(spool, present)
    return encoded(present)
