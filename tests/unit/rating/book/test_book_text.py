"""The text of a price book: it gives the book back, and says nothing of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from meter.rating.book.book_text import canonical_account
from meter.rating.book.book_text import canonical_json
from meter.rating.book.book_text import directory_from_text
from meter.rating.book.book_text import with_text
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Credit
from meter.rating.book.price_book import Discount
from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Minimum
from meter.rating.book.price_book import Place
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Sku
from meter.rating.book.price_book import Tax
from meter.rating.book.price_book import Tier
from meter.rating.book.price_book import Validity
from meter.rating.book.price_directory import check_files
from meter.rating.book.price_files import PriceFile
from meter.rating.book.values import exact_decimal

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=6)
amounts = st.decimals(0, 10**12, places=6, allow_nan=False).map(lambda value: exact_decimal(f"{value:f}"))
days = st.dates(date(1970, 1, 1), date(9998, 12, 31))
validities = st.builds(Validity, since=st.none() | days, until=st.none() | days)
scopes = st.builds(PriceScope, project=st.none() | names, account=st.none() | names, domain=st.none() | names)
places = st.builds(Place, file=names, line=st.integers(1, 9))
by_id = {"unique_by": lambda each: each.id, "max_size": 3}
fractions = st.fractions(min_value=Fraction(1, 10**12), max_value=10**12)

skus = st.builds(
    Sku,
    id=names,
    name=names,
    service=names,
    category=names,
    usage=st.sampled_from(["exists", "integral", "increase", "sum", "maximum", "percentile95"]),
    unit=names,
    factor=fractions,
    meter=st.none() | names,
    resource_kind=st.none() | names,
    states=st.lists(names, max_size=2).map(tuple),
    times_size=st.booleans(),
    by=st.lists(names, max_size=2).map(tuple),
    started=st.sampled_from([None, "minute", "hour"]),
    round_up_to=st.none() | amounts,
    minimum=st.none() | amounts,
    tax_category=st.none() | names,
)
tiers = st.builds(Tier, up_to=st.none() | amounts, list_price=amounts, price=amounts)
prices = st.builds(
    Price,
    id=names,
    sku=names,
    place=places,
    tiers=st.lists(tiers, min_size=1, max_size=3).map(tuple),
    match=st.dictionaries(names, names, max_size=2),
    validity=validities,
    scope=scopes,
    mode=st.sampled_from(["unit", "graduated", "volume", "package"]),
    package_size=st.none() | amounts,
    per=st.sampled_from(["account", "project", "resource"]),
    free=amounts,
    free_prorated=st.booleans(),
    per_month=st.booleans(),
)
common = {"id": names, "description": names, "place": places, "validity": validities, "scope": scopes}
charges = st.builds(
    FixedCharge,
    **common,
    service=names,
    category=names,
    amount=amounts,
    list_amount=amounts,
    recurring=st.booleans(),
    prorated=st.booleans(),
    resource_id=st.none() | names,
    tax_category=st.none() | names,
)
discounts = st.builds(Discount, **common, percent=amounts, skus=st.lists(names, max_size=2).map(tuple))
minimums = st.builds(Minimum, **common, amount=amounts, per=st.sampled_from(["account", "project"]))
credits_ = st.builds(Credit, **common, amount=amounts)
taxes = st.builds(
    Tax, category=names, name=names, percent=amounts, place=places, default=st.booleans(), validity=validities
)
books = st.builds(
    PriceBook,
    name=names,
    currency=names,
    timezone=st.sampled_from(["UTC", "Asia/Kolkata", "America/St_Johns"]).map(ZoneInfo),
    grace_days=st.integers(0, 365),
    issuer=names,
    region=names,
    default=st.booleans(),
    text=st.just(""),
    sha256=st.just(""),
    skus=st.lists(skus, **by_id).map(lambda found: {each.id: each for each in found}),
    prices=st.lists(prices, **by_id).map(tuple),
    fixed_charges=st.lists(charges, **by_id).map(tuple),
    discounts=st.lists(discounts, **by_id).map(tuple),
    minimums=st.lists(minimums, **by_id).map(tuple),
    credits=st.lists(credits_, **by_id).map(tuple),
    taxes=st.lists(taxes, max_size=2, unique_by=lambda each: each.category).map(tuple),
)
members = st.lists(st.builds(Membership, id=names, validity=validities), max_size=2).map(tuple)
accounts = st.lists(
    st.builds(Account, id=names, name=names, book=names, projects=members, domains=members, billing_address=names),
    **by_id,
)


@given(books, accounts)
def test_text_of_any_book_gives_the_book_and_the_accounts_back(book: PriceBook, accounts: list[Account]) -> None:
    written = with_text(book, accounts)
    read = directory_from_text(written.text)
    assert read.books == {book.name: written}
    assert read.accounts == {each.id: canonical_account(each) for each in accounts}
    assert with_text(book_of(written.text), read.accounts.values()) == written
    assert written.sha256 == hashlib.sha256(written.text.encode()).hexdigest()
    assert set(map(repr, written.prices)) == set(map(repr, book.prices))


leaves = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8"))
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(documents, st.integers(0, 4))
def test_canonical_json_is_that_of_rfc_8785(document: Any, levels: int) -> None:
    assert canonical_json(document, levels).encode() == rfc8785.dumps(document)


@pytest.mark.parametrize("levels", [0, 4])
def test_keys_are_sorted_by_utf_16(levels: int) -> None:
    document = {"\U00010000": 1, "\uffff": 2, "a": {"\U00010000": 3, "\uffff": 4}}
    assert canonical_json(document, levels).encode() == rfc8785.dumps(document)


TABLES = [
    '[[book]]\nname = "a"\ncurrency = "EUR"\ntimezone = "UTC"\nissuer = "x"\ndefault = true\n',
    '[[book]]\nname = "b"\ncurrency = "JPY"\ntimezone = "Asia/Tokyo"\nissuer = "x"\n',
    '[[sku]]\nid = "vm"\nusage = "exists"\nresource_kind = "instance"\nunit = "Hours"\nby = ["state", "flavor"]\n',
    '[[sku]]\nid = "ip"\nusage = "exists"\nresource_kind = "floating_ip"\nunit = "Hours"\n',
    '[[price]]\nsku = "vm"\nbook = ["b", "a"]\nprice = "1"\nmatch = {flavor = "x"}\n',
    '[[price]]\nsku = "ip"\nbook = "a"\nprice = "2"\n',
    '[[price]]\nsku = "ip"\nbook = "b"\nprice = "3"\nuntil = 2026-01-01\n',
    '[[price]]\nsku = "ip"\nbook = "b"\nprice = "4"\nfrom = 2026-01-01\n',
    '[[account]]\nid = "z"\nprojects = ["p", "o"]\n',
    '[[account]]\nid = "y"\nbook = "b"\ndomains = ["d"]\n',
    '[[tax]]\nbook = "a"\ncategory = "v"\nname = "VAT"\npercent = 20\n',
    '[[budget]]\nid = "w"\nproject = "p"\namount = 1\n',
]


def read(texts: Sequence[str]) -> PriceDirectory:
    checked = check_files([PriceFile(f"{number}.toml", text) for number, text in enumerate(texts)])
    assert checked.problems == []
    assert checked.directory is not None
    return checked.directory


@given(st.permutations(TABLES), st.integers(0, len(TABLES)))
def test_directory_does_not_depend_on_the_order_and_the_files_of_its_tables(tables: list[str], cut: int) -> None:
    assert read(["\n# a comment\n".join(tables[:cut]), "".join(tables[cut:])]) == read(["".join(TABLES)])


def test_text_does_not_depend_on_how_a_number_is_written() -> None:
    whole = "".join(TABLES)
    assert read([whole.replace('"1"', "1").replace('"2"', '"02.00"')]) == read([whole])
    assert read([whole.replace('"2"', '"2.01"')]).books["a"].sha256 != read([whole]).books["a"].sha256


def test_text_has_the_book_and_all_accounts_and_nothing_of_other_books() -> None:
    before = read(TABLES)
    other_price = read([each.replace('"4"', '"5"') for each in TABLES])
    assert before.books["a"].text == other_price.books["a"].text
    assert before.books["b"].text != other_price.books["b"].text
    budget = read([each.replace("amount = 1", "amount = 2") for each in TABLES])
    assert before.books["a"].text == budget.books["a"].text
    account = read([each.replace('"d"', '"e"') for each in TABLES])
    assert before.books["a"].text != account.books["a"].text


def test_account_of_another_book_has_none_in_the_directory_of_a_text() -> None:
    stored = directory_from_text(read(TABLES).books["b"].text)
    assert stored.account_of("p", None, date(2026, 1, 1)).book == "a"
    assert stored.account_of("q", None, date(2026, 1, 1)).book == ""
    assert set(stored.books) == {"b"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "meter-price-book-2"}', "[" * 100_000, "null", "é"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the text of a price book"):
        directory_from_text(text)


def test_text_with_another_value_is_refused() -> None:
    document = json.loads(read(TABLES).books["a"].text)
    for key, value in (("timezone", "Nowhere/Town"), ("grace_days", "x"), ("currency", None)):
        with pytest.raises(ValueError, match="not the text of a price book"):
            directory_from_text(json.dumps({**document, "book": {**document["book"], key: value}}))


def test_decimals_keep_their_digits() -> None:
    book = read(TABLES).books["a"]
    price = replace(book.prices[0], free=Decimal("0.123456789012"))
    assert str(book_of(with_text(replace(book, prices=(price,)), ()).text).prices[0].free) == "0.123456789012"


def book_of(text):
    [book] = directory_from_text(text).books.values()
    return book
