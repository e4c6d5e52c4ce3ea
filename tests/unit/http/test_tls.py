"""TLS options of the HTTP client."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.http import BadTlsFile
from meter.http import TlsOptions
from meter.http.tls import TlsPolicy


def test_unreadable_certificate_is_named_in_the_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(BadTlsFile, match="contains no PEM certificate"):
        TlsPolicy(TlsOptions(ca_file=str(empty)))
    with pytest.raises(BadTlsFile, match="No such file"):
        TlsPolicy(TlsOptions(cert_file=str(tmp_path / "none.pem")))
