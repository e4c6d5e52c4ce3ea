"""The overview: what is metered now, live, and what needs attention."""

from __future__ import annotations

import html
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from meter.api import Requester
from meter.api.web import attention
from meter.api.web.charts.arrivals import BARS
from meter.api.web.charts.arrivals import arrival_bars
from meter.completeness.activity import Arrivals
from meter.completeness_query import Closable
from meter.completeness_query import ClosingReason
from meter.completeness_query import CompletenessRow
from meter.rating.book.watched_directory import WatchedPriceDirectory
from meter.rating.budgets.budget_state import BudgetGap
from meter.rating.budgets.budget_state import BudgetScope
from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_state import BudgetThreshold
from tests.api_client import NOON
from tests.api_client import RECORDED
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.dead_letter_queue import MemoryDeadLetters

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class FixedAuth:
    def __init__(self, requester: Requester) -> None:
        self._requester = requester

    async def requester(self, request: Any) -> Requester:
        return self._requester


ADMIN, BLUE = Requester(is_admin=True), Requester(is_admin=False, project_id="blue")


def client_of(requester: Requester, **collaborators: Any) -> ApiClient:
    return ApiClient(auth=FixedAuth(requester), **collaborators)


def overview(client: ApiClient) -> Response:
    return client("/", headers=BROWSER)


def text_of(response: Response) -> str:
    return html.unescape(response.body.decode())


def write(client: ApiClient, *messages: Any) -> None:
    Deferred.fromCoroutine(client.store.write(messages))


def test_counts_and_newest_samples_are_shown() -> None:
    client = client_of(ADMIN)
    write(client, message(5, message_id="i", name="instance", type="gauge", resource_metadata={"state": "active"}))
    page = text_of(overview(client))
    assert '<b class="big">3</b> <a href="#meters">meters</a>' in page
    assert '<b class="big">1</b> <a href="/resources">resources</a> of 1 project' in page
    assert '<b class="big">5</b> samples of the last hour' in page
    assert "<bdi>active</bdi> 1" in page
    assert page.index("2026-11-22 12:05:00") < page.index("2026-11-22 12:03:00")
    assert "/resource?id=a%2Fb%20c" in page
    assert "static/live.js" in page
    assert 'role="status" aria-live="polite"' in page


def test_tenant_sees_only_their_project() -> None:
    clock, queue = Clock(), MemoryDeadLetters()
    queue.add(1)
    client = client_of(BLUE, clock=clock, bus=queue.services(clock))
    page = text_of(overview(client))
    assert '<b class="big">2</b> samples of the last hour' in page
    assert "disk.size" not in page
    assert "a/b c" not in page
    assert "dead letter" not in page
    assert "agents" not in page
    assert "nothing was expected" in page


def test_empty_store_says_what_to_do() -> None:
    client = client_of(ADMIN)
    client.store._rows.clear()
    page = text_of(overview(client))
    assert "No samples are stored yet. Agents send the first ones some seconds after they have started" in page
    assert '<div id="live" data-max="50" data-as-of="2026-11-22T12:10:00Z" hidden>' in page


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u202eabc", "x" * 300, "../?&#%"]
)
def test_hostile_names_are_escaped(name: str) -> None:
    client = client_of(ADMIN)
    write(
        client,
        message(
            5,
            message_id="i",
            name="instance",
            resource_id=name,
            project_id=name,
            unit=name,
            resource_metadata={"state": name},
        ),
    )
    response = overview(client)
    raw = response.body.decode()
    assert response.status == 200
    assert "<script>alert" not in raw
    assert "<img" not in raw
    assert f"<bdi>{name}</bdi>" in html.unescape(raw)
    assert " style=" not in raw
    assert " onerror=alert(1)>" not in raw


def test_dead_letters_and_a_broker_that_is_away_need_attention() -> None:
    clock, queue = Clock(), MemoryDeadLetters()
    queue.add(1)
    client = client_of(ADMIN, clock=clock, bus=queue.services(clock))
    page = text_of(overview(client))
    assert '<bdi>1 dead letter</bdi>. <a href="/pipeline/dead-letters">' in page
    assert "needs attention" in page
    clock.advance(10)
    queue.away = "refused"
    page = text_of(overview(client))
    assert "The message bus is unavailable: refused" in page
    assert "the message bus does not answer" in page


def test_price_directory_that_cannot_be_used_is_named_and_the_rest_of_the_page_is_shown(
    tmp_path: Path, logged_errors: Any
) -> None:
    (tmp_path / "book.toml").write_text("this is not TOML")
    clock = Clock()
    clock.advance(datetime(2026, 11, 20, tzinfo=UTC).timestamp())  # the last month should be closed
    prices = WatchedPriceDirectory(tmp_path, clock, in_thread=maybeDeferred)
    response = overview(client_of(ADMIN, clock=clock, prices=prices))
    assert response.status == 200
    assert f"the price directory cannot be used: {tmp_path}" in text_of(response)
    assert "newest samples" in text_of(response).lower()
    logged_errors.flush()


def test_store_that_is_away_is_a_page_that_says_so() -> None:
    client = client_of(ADMIN)
    client.store.unavailable = "the database is away"
    assert overview(client).status == 503


def test_client_of_the_api_gets_json() -> None:
    assert client_of(ADMIN)("/").headers["content-type"].startswith("application/json")


# --- bars ----------------------------------------------------------------------------------------------------------


def test_bars_tell_none_from_unknown() -> None:
    bars = arrival_bars(
        Arrivals(since=RECORDED - timedelta(seconds=95), counts=((RECORDED - timedelta(seconds=30), 8), (RECORDED, 2))),
        RECORDED + timedelta(seconds=3),
    )
    assert len(bars.bars) == BARS
    assert bars.bars[-1].start == RECORDED
    assert [each.samples for each in bars.bars[-5:]] == [0, 8, 0, 0, 2]
    assert [each.samples for each in bars.bars[-12:-10]] == [None, 0]
    assert (bars.most, bars.samples) == (8, 10)
    assert [each.height for each in bars.bars[-5:]] == [0, 100, 0, 0, 25]
    assert all(0 <= each.y <= 100 for each in bars.bars)


def test_bars_without_samples_have_no_height() -> None:
    bars = arrival_bars(Arrivals(since=RECORDED - timedelta(hours=1)), RECORDED)
    assert bars.most == 0
    assert {each.height for each in bars.bars} == {0.0}


# --- what needs attention ------------------------------------------------------------------------------------------


def budget(**changes: Any) -> BudgetState:
    given: dict[str, Any] = {
        "budget_id": "b",
        "name": "Shop",
        "scope": BudgetScope(project_id="blue"),
        "sku": None,
        "period": "2026-11",
        "start": NOON - timedelta(days=21),
        "end": NOON + timedelta(days=8),
        "currency": "EUR",
        "unit": None,
        "limit": Decimal(100),
        "used": Decimal(85),
        "forecast": Decimal(120),
        "evaluated_at": NOON,
        "thresholds": (BudgetThreshold(basis="used", percent=Decimal(80), reached_at=NOON),),
    }
    return BudgetState(**{**given, **changes})


def test_missing_samples_are_named_by_cause_without_those_that_may_still_arrive() -> None:
    row = CompletenessRow(
        start=NOON,
        end=RECORDED,
        expected=100,
        received=80,
        causes={"rejected": 5, "agent not running": 10, "not finalized": 5},
    )
    [found] = attention.of_completeness(row)
    assert found.text == "15 samples of the last 24 hours are missing: agent not running 10, rejected 5"
    assert list(attention.of_completeness(None)) == []


def test_budgets_over_a_threshold_and_unpriced_usage_are_named() -> None:
    gap = BudgetGap(code="unpriced", text="no price")
    states = [
        budget(),
        budget(name="Over", used=Decimal(130), gaps=(gap,)),
        budget(name="Below", thresholds=(BudgetThreshold(basis="used", percent=Decimal(80)),)),
        budget(name="Past", end=NOON),
    ]
    found = list(attention.of_budgets(states, RECORDED))
    assert [(each.level, each.text) for each in found] == [
        ("warn", "budget Shop: 80 % of the limit is used"),
        ("bad", "budget Over: 80 % of the limit is used"),
        ("warn", "usage without a price is in the budgets: Over"),
    ]


def test_month_that_cannot_be_closed_is_named_unless_nothing_was_measured() -> None:
    missing = ClosingReason(code="samples missing", text="7 samples are missing")
    nothing = ClosingReason(code="nothing expected", text="nothing was expected")

    def texts(*reasons: ClosingReason) -> list[str]:
        month = attention.OpenMonth("2026-10", Closable(start=NOON, end=RECORDED, reasons=reasons))
        return [each.text for each in attention.of_month(month)]

    assert texts(missing) == ["2026-10 cannot be closed: 7 samples are missing"]
    assert texts(nothing) == texts() == []
    assert list(attention.of_month(None)) == []
