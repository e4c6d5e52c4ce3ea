"""Settings of TLS on a port that a daemon listens on."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from meter.settings.section import Section


class ServerTlsSection(Section):
    """TLS of a port, version 1.2 or newer. Renewed files are used for new connections without a restart."""

    cert_file: str = Field(
        default="",
        description="Certificate (PEM) with its chain after it; the port speaks TLS if it is set.",
    )
    key_file: str = Field(
        default="",
        description="Key of the certificate (PEM, not encrypted), by default in cert_file. It is refused if every user of the host can read it.",
    )
    client_ca_file: str = Field(
        default="",
        description="CA certificates (PEM): if set, clients need a certificate that one of them has signed.",
    )


def tls_problems(section: str, tls: ServerTlsSection, listens: list[str]) -> Iterator[str]:
    """Yield a text for each contradiction in the TLS of the ports ``listens``."""
    if not tls.cert_file:
        for name in ("key_file", "client_ca_file"):
            if getattr(tls, name):
                yield f"[{section}.tls] {name}: set cert_file too, without which the port does not speak TLS"
        return
    for listen in listens:
        if listen.startswith("ssl:"):
            yield f"[{section}.tls] cert_file: listen must begin with tcp: then, not with ssl:, which has a certificate of its own"
