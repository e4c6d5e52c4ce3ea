"""Before anything is decided for good, all workers of a spread store answer and no transaction is in doubt."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from meter.interfaces import Unavailable
from meter.store.cluster.visibility import COMMITTED
from meter.store.cluster.visibility import MAY_RECOVER
from meter.store.cluster.visibility import PREPARED
from meter.store.cluster.visibility import RECOVER
from meter.store.cluster.visibility import ensure_all_visible


class Coordinator:
    """Answers with what workers have ``prepared``, of which the coordinator has ``committed`` some; recovery commits them."""

    def __init__(self, prepared=(), committed=(), *, away=(), may_recover=True, recovers=True):
        self.prepared, self.committed, self.away = set(prepared), set(committed), away
        self.may_recover, self.recovers = may_recover, recovers
        self.statements = []

    async def rows(self, statement, parameters=None):
        self.statements.append(statement)
        if statement == PREPARED:
            return [
                *[("w1:5432", True, " ".join(sorted(self.prepared))), ("w2:5432", True, "")],
                *[(name, False, "connection refused") for name in self.away],
            ]
        if statement == COMMITTED:
            return [(gid,) for gid in parameters[0] if gid in self.committed]
        if statement == MAY_RECOVER:
            return [(self.may_recover,)]
        assert statement == RECOVER
        if self.recovers:
            self.prepared -= self.committed
        return [(1,)]


def outcome(coordinator):
    found = []
    Deferred.fromCoroutine(ensure_all_visible(coordinator.rows)).addBoth(found.append)
    return found[0]


def test_one_question_suffices_where_nothing_is_prepared():
    coordinator = Coordinator()
    assert outcome(coordinator) is None
    assert coordinator.statements == [PREPARED]


def test_transaction_in_progress_is_not_waited_for():
    assert outcome(Coordinator(prepared={"citus_0_1"})) is None


def test_what_is_committed_and_not_visible_is_recovered():
    coordinator = Coordinator(prepared={"citus_0_1", "citus_0_2"}, committed={"citus_0_1"})
    assert outcome(coordinator) is None
    assert RECOVER in coordinator.statements
    assert coordinator.statements[-2:] == [PREPARED, COMMITTED]  # looked at again after the recovery


@pytest.mark.parametrize("options", [{"recovers": False}, {"may_recover": False}])
def test_rows_that_stay_in_doubt_are_no_answer(options):
    failure = outcome(Coordinator(prepared={"citus_0_1"}, committed={"citus_0_1"}, **options))
    assert failure.check(Unavailable)
    assert "transactions in doubt: 1;" in failure.getErrorMessage()


def test_worker_that_is_away_is_named():
    failure = outcome(Coordinator(away=["w3:5432"]))
    assert failure.check(Unavailable)
    assert "w3:5432 (connection refused)" in failure.getErrorMessage()
