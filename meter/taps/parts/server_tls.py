"""TLS of the ports of a daemon, as ``[api.tls]`` and ``[status.tls]`` configure it."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

from twisted.logger import Logger

from meter.settings import Config
from meter.settings.tls import ServerTlsSection
from meter.taps.daemon import Daemon
from meter.tls import BadTlsFile
from meter.tls import PemFile
from meter.tls import ServerTls

_log = Logger()


def server_tls(daemon: Daemon, section: str) -> ServerTls | None:
    """Return the TLS of the port of ``[api]`` or ``[status]``, ``None`` if it has none; files that cannot be used are problems."""
    try:
        tls = configured_tls(daemon.config, section)
    except BadTlsFile as error:
        daemon.problems.append(str(error))
        return None
    if tls is None:
        daemon.reload.add_check(lambda config: _problem_at_next_start(config, section))
        return None
    serving: ServerTls = tls

    def apply(config: Config) -> None:
        other = configured_tls(config, section)
        if other is None:
            raise ValueError("the port would no longer speak TLS, which needs a restart")
        serving.replace(other)

    def refresh() -> None:
        serving.refresh()
        if problem := serving.validity_problem(_now()):
            _log.warn("{problem}", problem=problem)

    daemon.certificate_ends[section] = serving.end
    daemon.reload.add([f"{section}.tls.*"], apply)
    daemon.reload.add_refresh(refresh)
    if problem := serving.validity_problem(_now()):
        daemon.warnings.append(problem)
    return serving


def _now() -> datetime:
    return datetime.now(UTC)


def _problem_at_next_start(config: Config, section: str) -> str:
    """Return why a port that is to speak TLS after a restart could not, empty if it can."""
    try:
        tls = configured_tls(config, section)
    except BadTlsFile as error:
        return str(error)
    return tls.validity_problem(_now()) if tls is not None else ""


def configured_tls(config: Config, section: str) -> ServerTls | None:
    """Return the TLS that ``config`` has in a section; raise :class:`~meter.tls.BadTlsFile`."""
    settings: ServerTlsSection = getattr(config, section).tls
    if not settings.cert_file:
        return None
    where = f"[{section}.tls]"
    ca_file = PemFile(f"{where} client_ca_file", settings.client_ca_file) if settings.client_ca_file else None
    key = PemFile(f"{where} key_file", settings.key_file or settings.cert_file)
    return ServerTls(PemFile(f"{where} cert_file", settings.cert_file), key, ca_file)
