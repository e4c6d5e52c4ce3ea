"""What the files of a price directory say, and everything that is wrong with them."""

from __future__ import annotations

import os
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from meter.rating.book.book_problem import PriceBookError
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Tier
from meter.rating.book.price_directory import CheckedDirectory
from meter.rating.book.price_directory import check_directory
from meter.rating.book.price_directory import check_files
from meter.rating.book.price_directory import read_directory
from meter.rating.book.price_files import MAX_FILE_BYTES
from meter.rating.book.price_files import PriceFile

BOOK = """
[[book]]
name = "standard"
currency = "EUR"
timezone = "Europe/Paris"
issuer = "Example Cloud"
"""

SKUS = """
[[sku]]
id = "vm"
usage = "exists"
resource_kind = "instance"
unit = "Hours"
by = ["flavor", "state"]
[[sku]]
id = "egress"
usage = "increase"
meter = "network.outgoing.bytes"
unit = "GB"
factor = "1/1000000000"
"""


def checked(*texts: str) -> CheckedDirectory:
    return check_files([PriceFile(f"{chr(97 + number)}.toml", text) for number, text in enumerate(texts)])


def directory(*texts: str) -> PriceDirectory:
    result = checked(*texts)
    assert list(map(str, result.problems)) == []
    assert result.directory is not None
    return result.directory


def problems(*texts: str) -> list[str]:
    result = checked(*texts)
    assert result.directory is None
    return list(map(str, result.problems))


def test_all_tables_are_read() -> None:
    read = directory(
        BOOK + 'region = "eu-1"\ngrace_days = 3\n' + SKUS,
        """
[[price]]
sku = "vm"
match = {flavor = "m1.small"}
from = 2026-01-01
list = "0.0125"
price = "0.010"
[[price]]
id = "traffic"
sku = "egress"
account = "acme"
free = 10
tiers = [{up_to = "100", price = "0.01", list = "0.02"}, {price = "0.008"}]
[[fixed_charge]]
id = "support"
description = "Support"
amount = "100"
recurring = true
account = "acme"
[[discount]]
id = "d"
description = "Ten percent"
percent = 10
skus = ["vm"]
[[minimum]]
id = "m"
description = "Minimum"
amount = "5"
[[credit]]
id = "c"
description = "Welcome"
amount = "50.00"
project = "p1"
[[tax]]
category = "standard"
name = "VAT"
percent = "20"
default = true
[[account]]
id = "acme"
projects = ["p1", {id = "p2", from = 2026-02-01, until = 2026-03-01}]
domains = ["d1"]
billing_address = \"\"\"
1 Rue
Paris\"\"\"
[[budget]]
id = "b"
account = "acme"
amount = "1000"
used_percent = [100, 50]
""",
    )
    book = read.books["standard"]
    assert (book.currency, book.timezone.key, book.grace_days, book.region) == ("EUR", "Europe/Paris", 3, "eu-1")
    assert book.default
    assert read.default_book == "standard"
    assert book.skus["vm"].factor == Fraction(1, 3600)
    assert book.skus["egress"].factor == Fraction(1, 10**9)
    traffic, small = book.prices
    assert small.id == "vm/flavor=m1.small/2026-01-01"
    assert small.tiers == (Tier(up_to=None, list_price=Decimal("0.0125"), price=Decimal("0.01")),)
    assert (small.mode, traffic.mode, traffic.free, traffic.scope) == (
        "unit",
        "graduated",
        Decimal(10),
        PriceScope(account="acme"),
    )
    assert traffic.tiers[1].list_price == Decimal("0.008")
    assert str(small.place) == "b.toml:2"
    assert book.fixed_charges[0].prorated
    assert book.discounts[0].skus == ("vm",)
    assert book.credits[0].scope == PriceScope(project="p1")
    assert str(book.credits[0].amount) == "50"
    assert book.taxes[0].default
    account = read.accounts["acme"]
    assert (account.name, account.book, account.billing_address) == ("acme", "standard", "1 Rue\nParis")
    assert read.account_of("p2", None, date(2026, 2, 28)).id == "acme"
    assert read.account_of("p2", None, date(2026, 3, 1)).id == "p2"
    assert read.account_of("p9", "d1", date(2026, 3, 1)).id == "acme"
    assert read.budgets["b"].used_percent == (Decimal(50), Decimal(100))


def test_everything_wrong_is_told_at_once_with_file_and_line() -> None:
    assert problems(
        BOOK.replace("EUR", "EURO"), SKUS + '[[price]]\nsku = "mv"\nprice = 0.1\n', "[[price]]\n", "x = \n"
    ) == [
        "a.toml:4: [[book]] currency 'EURO' is not a currency of ISO 4217, such as EUR, JPY or KWD",
        'b.toml:16: [[price]] price must be written as a text, so that it stays exact: "0.1"',
        "c.toml:1: [[price]] sku is missing",
        "d.toml:1: it is not TOML: Invalid value",
    ]


@pytest.mark.parametrize(
    ("book", "problem"),
    [
        ('currency = "EUR"', None),
        ('currency = "eur"', "did you mean EUR?"),
        ('currency = "XAU"', "has no minor unit"),
        ('timezone = "Europe/Pari"', "did you mean Europe/Paris?"),
        ('timezone = "../etc/passwd"', "is no time zone"),
        ('timezone = "localtime"', "is no time zone"),
        ('period = "week"', "must be one of month"),
        ("grace_days = -1", "greater than or equal to 0"),
        ('grace_days = "5"', "should be a whole number, not '5'"),
        ('issuer = "a\\u0000b"', "control character U+0000"),
        ('issuer = "a\\u202Eb"', "control character U+202E"),
        ("issuer = 7", "must be a text in quotes"),
        ('name = ""', "must not be empty"),
        ('name = " a"', "begin or end with a blank"),
        ('name = "a\\u200Bb"', "invisible character U+200B: 'a\\u200bb'"),
        ('name = "a\\u3164b"', "invisible character U+3164"),
        ('name = "a\\uFE0Fb"', "invisible character U+FE0F"),
        ('name = "a\\u00A0b"', "plain blanks, not the character U+00A0"),
        ('issuer = "a\\u200Cb"', None),
        ('regoin = "x"', "did you mean region?"),
    ],
)
def test_book_is_checked(book: str, problem: str | None) -> None:
    key = book.partition(" ")[0]
    text = "\n".join(line for line in BOOK.splitlines() if not line.startswith(f"{key} ")) + f"\n{book}\n"
    if problem is None:
        directory(text)
    else:
        [found] = problems(text)
        assert problem in found


@pytest.mark.parametrize(
    ("sku", "problem"),
    [
        ('usage = "exists"\nresource_kind = "instance"\nunit = "Hours"', None),
        ('usage = "exists"\nresource_kind = "instance"\nunit = "hours"', "write Hours"),
        ('usage = "exists"\nresource_kind = "instance"\nunit = "GB"', "is a duration"),
        ('usage = "exists"\nresource_kind = "instance"\nunit = "Hours"\nfactor = "1/60"', "must be 1/3600"),
        ('usage = "exists"\nresource_kind = "instance"\nunit = "Hours"\nfactor = 0', "above 0"),
        ('usage = "exists"\nresource_kind = "instance"\nunit = "Hours"\nfactor = "1/0"', "denominator"),
        ('usage = "exists"\nresource_kind = "instance"\nunit = "Hours"\nfactor = "-1/2"', "must be a fraction"),
        ('usage = "exists"\nresource_kind = "instance"\nunit = "Hours"\nby = ["flavour"]', "no value of a life"),
        ('usage = "exists"\nresource_kind = "server"\nunit = "Hours"', "unknown resource_kind"),
        ('usage = "exists"\nunit = "Hours"', "resource_kind is missing"),
        ('usage = "exists"\nmeter = "x"\nresource_kind = "instance"\nunit = "Hours"', "meter is not for usage exists"),
        ('usage = "exists"\nresource_kind = "instance"\nunit = "GiB-Hours"\ntimes_size = true', "have no size"),
        ('usage = "sum"\nunit = "Requests"\nfactor = 1', "meter is missing"),
        ('usage = "sum"\nmeter = "x"\nunit = "Requests"', "factor is missing"),
        ('usage = "sum"\nmeter = "x"\nunit = "GB-Hours"\nfactor = 1', "has no duration"),
        ('usage = "sum"\nmeter = "x"\nunit = "GB"\nfactor = 1\nstarted = "hour"', "started is for usage exists only"),
        ('usage = "sum"\nmeter = "x"\nunit = "GB"\nfactor = 1\nround_up_to = "0"', "must be above 0"),
        ('usage = "sum"\nmeter = "x"\nunit = "GB"\nfactor = 1\ntax_category = "y"', "unknown tax_category"),
        ('usage = "sum"\nmeter = "x"\nunit = "GB"\nfactor = 1\nbook = "standrad"', "did you mean standard?"),
        ('usage = "sum"\nmeter = "x"\nunit = "GB"\nfactor = 1\ncategory = "Network"', "did you mean Networking?"),
        ('usage = "mean"\nmeter = "x"\nunit = "GB"\nfactor = 1', "must be one of exists"),
    ],
)
def test_sku_is_checked(sku: str, problem: str | None) -> None:
    text = f'{BOOK}[[sku]]\nid = "x"\n{sku}\n'
    if problem is None:
        directory(text)
    else:
        [found] = problems(text)
        assert problem in found


@pytest.mark.parametrize(
    ("price", "problem"),
    [
        ('price = "0"', None),
        ("price = 1", None),
        ("price = 0.1", 'so that it stays exact: "0.1"'),
        ("price = true", "must be a decimal"),
        ('price = "-1"', "must not be negative"),
        ('price = "0,1"', 'did you mean "0.1"?'),
        ('price = "1e3"', "must be a decimal"),
        ('price = "١"', "must be a decimal"),
        ('price = "0.0000000000001"', "12 after the point"),
        ('price = "1234567890123456"', "15 digits before"),
        ('price = "1"\nfrom = 2026-02-01\nuntil = 2026-02-01', "must be after from"),
        ('price = "1"\nfrom = 2026-02-01T00:00:00', "without quotes and time"),
        ('price = "1"\nfrom = "2026-02-01"', "remove the quotes"),
        ('price = "1"\nfrom = 2028-02-29', None),
        ('price = "1"\nfrom = 2027-02-29', "not TOML: Invalid date"),
        ('price = "1"\nfrom = 9999-12-31', "years 1970 to 9998"),
        ('price = "1"\nsince = 2026-01-01', "unknown key since"),
        ('price = "1"\nproject = "a"\ndomain = "b"', "give one of project, domain"),
        ('price = "1"\naccount = "nobody"', "unknown account"),
        ('price = "1"\nmatch = {flavour = "x"}', "did you mean flavor?"),
        ('price = "1"\nmatch = {zone = "x"}', "cannot match on 'zone'"),
        ('price = "1"\nmatch = {flavor = 7}', None),
        ('price = "1"\nmatch = {flavor = "small\\u200B"}', "invisible character U+200B"),
        ('price = "1"\nproject = "shop\\u00AD"', "invisible character U+00AD"),
        ('price = "1"\nmode = "graduated"', "needs tiers"),
        ('price = "1"\nmode = "package"', "package_size is missing"),
        ('price = "1"\nmode = "package"\npackage_size = "0"', "must be above 0"),
        ('price = "1"\npackage_size = "3"', 'is for mode = "package" only'),
        ('price = "1"\nper = "resources"', "did you mean resource?"),
        ('price = "1"\nper_month = true', None),
        ('price = "1"\nfree_prorated = true', "has no effect"),
        ("tiers = []", "at least 1 item"),
        ('tiers = [{price = "1"}]\nprice = "2"', "exclude each other"),
        ('tiers = [{price = "1", up_to = 5}]', "leave up_to out of the last tier"),
        ('tiers = [{price = "1"}, {price = "2"}]', "never reached"),
        ('tiers = [{price = "1", up_to = 5}, {price = "2", up_to = 5}, {price = "3"}]', "must ascend"),
        ('free = 5\ntiers = [{price = "1", up_to = 5}, {price = "2"}]', "the first tier is free"),
        ('tiers = [{price = "1"}]\nmode = "unit"', "did you mean graduated or volume"),
        ("", "give price, or tiers"),
    ],
)
def test_price_is_checked(price: str, problem: str | None) -> None:
    text = f'{BOOK}{SKUS}[[price]]\nsku = "vm"\n{price}\n'
    if problem is None:
        directory(text)
    else:
        [found] = problems(text)
        assert problem in found


def test_price_per_month_needs_a_unit_in_hours() -> None:
    [found] = problems(f'{BOOK}{SKUS}[[price]]\nsku = "egress"\nprice = "1"\nper_month = true\n')
    assert "the unit of egress is GB" in found


@pytest.mark.parametrize("unit", ["100 Hours", "10 Core-Hours"])
def test_price_per_month_needs_a_unit_that_is_no_multiple(unit: str) -> None:
    factor = "" if unit == "100 Hours" else 'factor = "1/36000"\n'
    skus = f'[[sku]]\nid = "vm"\nusage = "exists"\nresource_kind = "instance"\nunit = "{unit}"\n{factor}'
    [found] = problems(f'{BOOK}{skus}[[price]]\nsku = "vm"\nprice = "72"\nper_month = true\n')
    assert found.endswith(f"the unit of vm is {unit}, a multiple: write {unit.split()[-1]}")


NAMED_DOMAIN = SKUS + 'by = ["domain"]\n'
DERIVED = '[[price]]\nsku = "vm"\nmatch = {flavor = "a"}\nprice = "1"\nuntil = 2026-11-16\n'
WRITTEN = '[[price]]\nid = "vm/flavor=a"\nsku = "vm"\nmatch = {flavor = "a"}\nprice = "2"\nfrom = 2026-11-16\n'
OF_VALUE = '[[price]]\nsku = "egress"\nmatch = {domain = "x"}\nprice = "5"\n'
OF_DOMAIN = '[[price]]\nsku = "egress"\ndomain = "x"\nprice = "7"\n'


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (DERIVED, WRITTEN, "b.toml:7: [[price]] id 'vm/flavor=a' is taken: b.toml:1 has it"),
        (WRITTEN, DERIVED, "b.toml:7: [[price]] its id would be 'vm/flavor=a', which b.toml:1 has"),
        (OF_VALUE, OF_DOMAIN, "b.toml:5: [[price]] its id would be 'egress/domain=x', which b.toml:1 has"),
        (OF_DOMAIN, OF_VALUE, "b.toml:5: [[price]] its id would be 'egress/domain=x', which b.toml:1 has"),
    ],
)
def test_prices_have_different_ids_written_or_made(first: str, second: str, problem: str) -> None:
    [found] = problems(BOOK + NAMED_DOMAIN, first + second)
    assert problem in found


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('[[fixed_charge]]\nid = "x"\ndescription = ""\namount = "1"\nrecurring = false', "from is missing"),
        (
            '[[fixed_charge]]\nid = "x"\ndescription = ""\namount = "1"\nrecurring = false\nfrom = 2026-01-01\nprorated = true',
            "prorated is for charges",
        ),
        (
            '[[fixed_charge]]\nid = "x"\ndescription = ""\namount = "1"\nrecurring = true\nresource_id = "r"',
            "needs the project",
        ),
        ('[[discount]]\nid = "x"\ndescription = ""\npercent = "100.1"', "must be at most 100"),
        ('[[discount]]\nid = "x"\ndescription = ""\npercent = "0"', "must be above 0"),
        ('[[discount]]\nid = "x"\ndescription = ""\npercent = "1"\nskus = ["egres"]', "did you mean egress?"),
        ('[[minimum]]\nid = "x"\ndescription = ""\namount = "5"\nper = "resource"', "must be one of account, project"),
        ('[[minimum]]\nid = "x"\ndescription = ""\namount = "5"\nproject = "p"', 'write per = "project"'),
        ('[[minimum]]\nid = "x"\ndescription = ""\namount = "5.001"', "more decimals than EUR: 2"),
        ('[[credit]]\nid = "x"\ndescription = ""\namount = "5"', "of an account or a project"),
        ('[[credit]]\nid = "x"\ndescription = ""\namount = "0"\nproject = "p"', "must be above 0"),
        ('[[tax]]\ncategory = "x"\nname = "VAT"\npercent = "-1"', "must not be negative"),
        ('[[account]]\nid = "x"\nbook = "other"', "unknown book 'other'"),
        ('[[account]]\nid = "x"\nprojects = [{id = "p", from = 2026-02-01, until = 2026-01-01}]', "must be after from"),
        ('[[account]]\nid = "x"\nprojects = ["p", "p"]', "twice to the account on all days"),
        (
            '[[account]]\nid = "x"\nprojects = ["p", 7]',
            "projects[2] must be an id, as a text, or a table with id, from and until, not 7",
        ),
        ('[[budget]]\nid = "x"\namount = "5"', "of a project, an account or a domain"),
        ('[[budget]]\nid = "x"\nproject = "p"\ndomain = "d"\namount = "5"', "write one of project, account and domain"),
        ('[[budget]]\nid = "x"\nproject = "p"', "write one of amount and quantity"),
        ('[[budget]]\nid = "x"\nproject = "p"\nquantity = "5"', "needs the sku"),
        ('[[budget]]\nid = "x"\nproject = "p"\namount = "5"\nused_percent = [0]', "must be above 0"),
        ('[[budget]]\nid = "x"\nproject = "p"\nquantity = "5"\nsku = "vm"\nwebhooks = [1]', "must be a text"),
    ],
)
def test_charge_account_and_budget_are_checked(table: str, problem: str) -> None:
    [found] = problems(f"{BOOK}{SKUS}{table}\n")
    assert problem in found


def test_webhooks_of_budgets_are_those_of_the_configuration() -> None:
    text = f'{BOOK}[[budget]]\nid = "x"\nproject = "p"\namount = "5"\nwebhooks = ["pager", "chat"]\n'
    files = [PriceFile("a.toml", text)]
    assert check_files(files).directory is not None
    [found] = check_files(files, webhooks=["chat"]).problems
    assert str(found) == "a.toml:11: [[budget]] unknown webhook 'pager' in [rating] webhooks; known: chat"


@pytest.mark.parametrize(
    ("prices", "problem"),
    [
        (["", "from = 2026-02-01"], "overlaps the price at b.toml:1 from 2026-02-01 on: end that one"),
        (["until = 2026-02-01", "from = 2026-02-01"], None),
        (["until = 2026-02-02", "from = 2026-02-01"], "overlaps"),
        (["from = 2026-02-01", ""], "b.toml:1: [[price]] of vm overlaps the price at c.toml:1"),
        (['project = "p"', ""], None),
        (['project = "p"', 'project = "q"'], None),
        (['project = "p"', 'project = "p"\nfrom = 2026-01-01'], "overlaps"),
        (['domain = "p"', 'project = "p"'], None),
        (['match = {flavor = "a"}', 'match = {flavor = "b"}'], None),
        (['match = {flavor = "a"}', 'match = {state = "x"}'], "ambiguous"),
        (['match = {flavor = "a"}\nuntil = 2026-01-01', 'match = {state = "x"}\nfrom = 2026-01-01'], None),
        (['match = {flavor = "a"}', 'match = {state = "x"}', 'match = {state = "x", flavor = "a"}'], None),
        (
            [
                'match = {flavor = "a"}',
                'match = {state = "x"}',
                'match = {state = "x", flavor = "a"}\nfrom = 2026-01-01',
            ],
            "ambiguous",
        ),
        (
            [
                'match = {flavor = "a"}',
                'match = {state = "x"}',
                'match = {state = "x", flavor = "a"}\nfrom = 2026-01-01',
                'match = {state = "x", flavor = "a"}\nuntil = 2026-01-01',
            ],
            None,
        ),
        (['match = {flavor = "a"}', 'match = {state = "x"}\nproject = "p"'], None),
    ],
)
def test_two_prices_of_equal_rank_never_apply_at_once(prices: list[str], problem: str | None) -> None:
    texts = [f'[[price]]\nsku = "vm"\nprice = "{number}"\n{each}\n' for number, each in enumerate(prices)]
    if problem is None:
        directory(BOOK + SKUS, *texts)
    else:
        [found] = problems(BOOK + SKUS, *texts)
        assert problem in found


def test_many_overlaps_are_all_told_and_many_ambiguities_as_far_as_they_help() -> None:
    overlaps = '[[price]]\nsku = "vm"\nprice = "1"\n' * 30
    assert len(problems(BOOK + SKUS, overlaps)) == 29
    flavors = "".join(f'[[price]]\nsku = "vm"\nprice = 1\nmatch = {{flavor = "{each}"}}\n' for each in range(300))
    states = "".join(f'[[price]]\nsku = "vm"\nprice = 1\nmatch = {{state = "{each}"}}\n' for each in range(300))
    assert len(problems(BOOK + SKUS, flavors + states)) == 20


def test_price_of_a_sku_in_several_books_belongs_to_one() -> None:
    yen = BOOK.replace("standard", "japan").replace("EUR", "JPY")
    assert [each.partition(": ")[2] for each in problems(BOOK, yen)] == [
        "[[book]] no book is the default: write default = true in the book of projects without an account"
    ]
    both = [BOOK + "default = true\n", yen, SKUS]
    assert set(directory(*both).books["japan"].skus) == {"vm", "egress"}
    [missing] = problems(*both, '[[price]]\nsku = "vm"\nprice = 1\n')
    assert "book is missing, as there are several: japan, standard" in missing
    read = directory(*both, '[[price]]\nsku = "vm"\nprice = 1\nbook = "japan"\n')
    assert (len(read.books["japan"].prices), len(read.books["standard"].prices)) == (1, 0)
    [twice] = problems(BOOK + "default = true\n", yen + "default = true\n")
    assert "there is another default book at a.toml:2" in twice


def test_price_of_an_account_is_in_its_book() -> None:
    yen = BOOK.replace("standard", "japan").replace("EUR", "JPY")
    account = '[[account]]\nid = "acme"\nbook = "japan"\n'
    price = '[[price]]\nsku = "vm"\nprice = 1\nbook = "standard"\naccount = "acme"\n'
    [found] = problems(BOOK + "default = true\n", yen, SKUS, account, price)
    assert "the account acme has the book japan, so that this of standard is never used" in found


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ('projects = ["p"]', 'projects = ["q"]', None),
        (
            'projects = ["p"]',
            'projects = ["p"]',
            "the project p belongs to the account one, too, on all days (b.toml:3)",
        ),
        ('projects = [{id = "p", until = 2026-02-01}]', 'projects = [{id = "p", from = 2026-02-01}]', None),
        (
            'projects = [{id = "p", until = 2026-02-02}]',
            'projects = [{id = "p", from = 2026-02-01}]',
            "from 2026-02-01 on",
        ),
        ('domains = ["p"]', 'domains = ["p"]', "the domain p belongs"),
        ('projects = ["p"]', 'domains = ["p"]', None),
        ('projects = ["two"]', 'projects = ["x"]', "two statements would have one id"),
        ('projects = ["x"]', 'projects = ["two"]', None),
        ('projects = ["x"]', 'projects = [{id = "two", from = 2026-01-01}]', "two statements would have one id"),
        ("", 'id = "one"\n', "'one' is taken: b.toml:1 has it"),
    ],
)
def test_project_belongs_to_one_account_at_a_time(first: str, second: str, problem: str | None) -> None:
    ids = ['id = "one"\n', "" if second.startswith("id") else 'id = "two"\n']
    texts = [f"[[account]]\n{id}{each}\n" for id, each in zip(ids, (first, second), strict=True)]
    if problem is None:
        directory(BOOK, *texts)
    else:
        [found] = problems(BOOK, *texts)
        assert problem in found


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ("", "", "the category a has another tax"),
        ("until = 2026-01-01", "from = 2026-01-01", None),
        ("default = true", 'category = "b"\ndefault = true', "a is a default, too"),
        ("default = true\nuntil = 2026-01-01", 'category = "b"\ndefault = true\nfrom = 2026-01-01', None),
    ],
)
def test_line_has_one_tax(first: str, second: str, problem: str | None) -> None:
    texts = [
        '[[tax]]\nname = "VAT"\npercent = 20\n' + ("" if "category" in each else 'category = "a"\n') + each
        for each in (first, second)
    ]
    if problem is None:
        directory(BOOK, *texts)
    else:
        [found] = problems(BOOK, *texts)
        assert problem in found


@pytest.mark.parametrize("second", ["e\u0301", "\u00e9"])
def test_ids_that_look_the_same_are_the_same(second: str) -> None:
    [found] = problems(BOOK, '[[account]]\nid = "\u00e9"\n', f'[[account]]\nid = "{second}"\n')
    assert "is taken: b.toml:1 has it" in found


def test_ids_and_names_of_any_alphabet_are_kept() -> None:
    read = directory(BOOK, '[[account]]\nid = "שלום"\nname = "می\u200cخواهم"\nprojects = ["プロジェクト"]\n')
    assert read.accounts["שלום"].name == "می\u200cخواهم"
    assert read.account_of("プロジェクト", None, date(2026, 1, 1)).id == "שלום"


def test_what_depends_on_a_faulty_table_is_not_told() -> None:
    faulty = BOOK + "grace = 1\n", SKUS.replace("Hours", "hours")
    accounts = '[[account]]\nid = "a"\nprojects = 7\nbook = "standard"\n'
    price = '[[price]]\nsku = "vm"\nprice = 1\naccount = "a"\nbook = "standard"\n'
    assert len(problems(*faulty, accounts, price)) == 3


def test_what_an_unread_file_may_define_is_not_told() -> None:
    price = '[[price]]\nsku = "vm"\nprice = 1\naccount = "a"\n'
    [found] = problems(BOOK, price, "[[sku]\n")
    assert found.startswith("c.toml:1: it is not TOML")


# --- files ---------------------------------------------------------------------------------------------------------


def files_problems(path: Path) -> list[str]:
    with pytest.raises(PriceBookError) as caught:
        read_directory(path)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(each) for each in caught.value.problems]


def test_files_are_read_in_any_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(BOOK, encoding="utf-8-sig", newline="\r\n")
    (tmp_path / "a.toml").write_text(SKUS)
    (tmp_path / ".c.toml").write_text("no TOML")
    (tmp_path / "d.toml~").write_text("no TOML")
    assert set(read_directory(tmp_path).books["standard"].skus) == {"vm", "egress"}


def test_directory_without_files_is_a_fault(tmp_path: Path) -> None:
    assert files_problems(tmp_path) == [f"{tmp_path}: there is no file *.toml in the price directory"]
    assert files_problems(tmp_path / "absent") == [
        f"{tmp_path}/absent: the directory cannot be read: No such file or directory"
    ]
    (tmp_path / "a.toml").write_text("")
    assert files_problems(tmp_path) == ["price directory: there is no [[book]] in any file"]


def test_file_that_cannot_be_read_is_told_with_the_faults_of_others(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(BOOK)
    (tmp_path / "b.toml").symlink_to("c.toml")
    (tmp_path / "c.toml").symlink_to("b.toml")
    (tmp_path / "d.toml").write_bytes(b"# caf\n# caf\xe9\n")
    (tmp_path / "e.toml").mkdir()
    os.mkfifo(tmp_path / "f.toml")
    (tmp_path / "g.toml").write_text("[[sku]]\n")
    with (tmp_path / "h.toml").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    told = files_problems(tmp_path)
    assert told == [
        "b.toml: it cannot be read: Too many levels of symbolic links",
        "c.toml: it cannot be read: Too many levels of symbolic links",
        "d.toml:2: it is not in UTF-8: save it as UTF-8",
        "e.toml: it is not a file",
        "f.toml: it is not a file",
        "g.toml:1: [[sku]] id is missing",
        "g.toml:1: [[sku]] unit is missing",
        "g.toml:1: [[sku]] usage is missing",
        "h.toml: it is too large: 8 MiB are allowed",
    ]


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 20_000, "a = " + "1" * 5_000, "[[book]\n", '[[book]]\nname = "\ud7ff', "\x00", "=", "[[a]]\n[a]"],
)
def test_text_that_is_no_usable_toml_is_one_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert any("TOML" in each for each in files_problems(tmp_path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[book]\n", "write two brackets: [[book]]"),
        ("book = 1\n", "write two brackets: [[book]]"),
        ("book = [1]\n", "write two brackets: [[book]]"),
        ("[[skus]]\n", "unknown table [[skus]]; did you mean sku?"),
        ("name = 1\n", "unknown table [[name]]"),
    ],
)
def test_other_table_is_told(text: str, problem: str) -> None:
    [found] = problems(BOOK, text)
    assert found.startswith(f"b.toml:1: {problem}")


def test_warning_does_not_make_a_directory_unusable(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(BOOK)
    assert check_directory(tmp_path).directory is not None


TWO_ZONES = (
    BOOK
    + """default = true
[[book]]
name = "japan"
currency = "JPY"
timezone = "Asia/Tokyo"
issuer = "Example Cloud"
[[account]]
id = "acme"
book = "standard"
projects = ["q", {id = "p", until = 2026-11-15}]
"""
)


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        (
            'book = "japan"\nprojects = ["o", {id = "p", from = 2026-11-15}]',
            "8 hours of p are billed by both accounts: 2026-11-15 begins at another time in the book japan (Asia/Tokyo)"
            " than in standard (Europe/Paris)",
        ),
        (
            'book = "japan"\nprojects = ["o", {id = "p", from = 2026-11-16, until = 2026-12-01}]',
            "8 hours of p are billed by both accounts: 2026-11-16 begins at another time in the book japan (Asia/Tokyo)"
            " than in standard (Europe/Paris)",
        ),
        (
            'book = "japan"\nprojects = [{id = "o", until = 2026-07-01}]',
            "7 hours of o are billed by none: 2026-07-01 begins at another time in the book standard (Europe/Paris)"
            " than in japan (Asia/Tokyo)",
        ),
        ('book = "standard"\nprojects = ["o", {id = "p", from = 2026-11-15}]', None),
        ('book = "japan"\nprojects = ["o"]', None),
    ],
)
def test_change_to_an_account_with_another_time_zone_is_warned_of(account: str, expected: str | None) -> None:
    text = f'{TWO_ZONES}[[account]]\nid = "other"\n{account}\n'
    found = check_files([PriceFile("a.toml", text)], meters={})
    assert found.directory is not None
    told = [str(each) for each in found.problems if "hours" in str(each)]
    if expected is None:
        assert told == []
    else:
        assert expected in told[0]
        assert told[0].startswith(f"a.toml:{text[: text.rindex('projects')].count(chr(10)) + 1}:")
        assert len(told) == (2 if "2026-12-01" in account else 1)


def test_fault_of_a_book_makes_no_unknown_sku() -> None:
    budget = '[[budget]]\nid = "b"\nproject = "p"\nsku = "egress"\nquantity = 1\n'
    (found,) = problems(BOOK.replace("currency", "curency") + 'currency = "EUR"\n' + SKUS + budget)
    assert "unknown key curency" in found


def test_price_that_matches_an_unknown_key_is_ambiguous_with_no_other() -> None:
    price = '[[price]]\nsku = "vm"\nprice = "1"\nmatch = '
    (found,) = problems(BOOK + SKUS + f'{price}{{flavor = "a"}}\n{price}{{flavour = "a"}}\n')
    assert "cannot match on 'flavour'; did you mean flavor?" in found
