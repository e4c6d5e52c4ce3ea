"""What is suspicious about a SKU, given the meters of a host."""

from __future__ import annotations

import pytest

from meter.rating.book.price_directory import check_files
from meter.rating.book.price_files import PriceFile
from meter.sample import MeterDefinition

BOOK = '[[book]]\nname = "a"\ncurrency = "EUR"\ntimezone = "UTC"\nissuer = "x"\n'
METERS = {
    meter.name: meter
    for meter in (
        MeterDefinition("network.outgoing.bytes", "cumulative", "B"),
        MeterDefinition("memory.usage", "gauge", "MiB"),
        MeterDefinition("cpu", "cumulative", "ns"),
        MeterDefinition("requests", "delta", "request"),
        MeterDefinition("instance:*", "gauge", "instance"),
        MeterDefinition("*", "gauge", ""),
    )
}


def warnings(usage: str, meter: str, unit: str, factor: str) -> list[str]:
    sku = f'[[sku]]\nid = "x"\nusage = "{usage}"\nmeter = "{meter}"\nunit = "{unit}"\nfactor = "{factor}"\n'
    sku += '[[price]]\nsku = "x"\nprice = "1"\n'
    checked = check_files([PriceFile("a.toml", BOOK + sku)], meters=METERS)
    assert checked.directory is not None
    return [str(each) for each in checked.problems]


@pytest.mark.parametrize(
    ("usage", "meter", "unit", "factor"),
    [
        ("increase", "network.outgoing.bytes", "GB", "1/1000000000"),
        ("increase", "network.outgoing.bytes", "GiB", "1/1073741824"),
        ("increase", "network.outgoing.bytes", "10 GB", "1/10000000000"),
        ("percentile95", "network.outgoing.bytes", "Mb/Second", "8/1000000"),
        ("percentile95", "network.outgoing.bytes", "GB/Hour", "3600/1000000000"),
        ("percentile95", "memory.usage", "GiB", "1/1024"),
        ("percentile95", "requests", "Requests/Second", "1"),
        ("integral", "memory.usage", "GiB-Hours", "1/3686400"),
        ("maximum", "memory.usage", "GiB", "1/1024"),
        ("increase", "cpu", "Core-Hours", "1/3600000000000"),
        ("sum", "requests", "1000 Requests", "1/1000"),
        ("integral", "instance:m1", "Instance-Hours", "1/3600"),
    ],
)
def test_sku_that_fits_its_meter_is_not_suspicious(usage: str, meter: str, unit: str, factor: str) -> None:
    assert warnings(usage, meter, unit, factor) == []


@pytest.mark.parametrize(
    ("usage", "meter", "unit", "factor", "expected"),
    [
        ("increase", "network.outgoing.byte", "GB", "1", "a.toml:9: warning: [[sku]] no plugin of this host makes"),
        ("increase", "network.outgoing.byte", "GB", "1", "did you mean network.outgoing.bytes?"),
        ("increase", "memory.usage", "GB", "1", "increase measures cumulative meters; memory.usage is gauge"),
        ("sum", "cpu", "Hours", "1", "sum measures delta meters; cpu is cumulative"),
        ("increase", "network.outgoing.bytes", "GiB", "1/1000000000", "the factor is 1/1073741824, not"),
        ("integral", "memory.usage", "GiB-Hours", "1/3600", "the factor is 1/3686400, not 1/3600"),
        ("percentile95", "network.outgoing.bytes", "Mb/Second", "1/1000000", "the factor is 1/125000"),
        ("increase", "cpu", "Hours", "1/3600", "the factor is 1/3600000000000"),
    ],
)
def test_sku_that_does_not_fit_its_meter_is_a_warning(
    usage: str, meter: str, unit: str, factor: str, expected: str
) -> None:
    [warning] = warnings(usage, meter, unit, factor)
    assert expected in warning
