"""TLS of the ports of a daemon, as ``[api.tls]`` and ``[status.tls]`` configure it."""

from __future__ import annotations

from meter.settings import Config
from meter.settings.tls import ServerTlsSection
from meter.taps.daemon import Daemon
from meter.tls import BadTlsFile
from meter.tls import PemFile
from meter.tls import ServerTls


def server_tls(daemon: Daemon, section: str) -> ServerTls | None:
    """Return the TLS of the port of ``[api]`` or ``[status]``, ``None`` if it has none; files that cannot be used are problems."""
    try:
        tls = configured_tls(daemon.config, section)
    except BadTlsFile as error:
        daemon.problems.append(str(error))
        return None
    if tls is not None:

        def apply(config: Config) -> None:
            other = configured_tls(config, section)
            if other is None:
                raise ValueError("the port would no longer speak TLS, which needs a restart")
            tls.replace(other)

        daemon.reload.add([f"{section}.tls.*"], apply)
        daemon.reload.add_refresh(tls.refresh)
    return tls


def configured_tls(config: Config, section: str) -> ServerTls | None:
    """Return the TLS that ``config`` has in a section; raise :class:`~meter.tls.BadTlsFile`."""
    settings: ServerTlsSection = getattr(config, section).tls
    if not settings.cert_file:
        return None
    where = f"[{section}.tls]"
    ca_file = PemFile(f"{where} client_ca_file", settings.client_ca_file) if settings.client_ca_file else None
    key = PemFile(f"{where} key_file", settings.key_file or settings.cert_file)
    return ServerTls(PemFile(f"{where} cert_file", settings.cert_file), key, ca_file)
