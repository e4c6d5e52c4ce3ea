"""FOCUS as Parquet: exact decimals, and a clear error where the library is not installed."""

from __future__ import annotations

import io
import sys

import pytest

from meter.rating.exports.focus_columns import COST_AND_USAGE
from meter.rating.exports.focus_parquet import FocusParquet
from meter.rating.exports.focus_parquet import ParquetUnavailable


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ParquetUnavailable, match=r"pip install pyarrow"):
        FocusParquet(io.BytesIO(), COST_AND_USAGE["1.2"], "1.2")
