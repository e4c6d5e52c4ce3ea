"""Ids that a coordinator has forgotten are found, and looked for once per start of the server."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from meter.interfaces import Unavailable
from meter.store.cluster.given_ids import GIVEN
from meter.store.cluster.given_ids import INCARNATION
from meter.store.cluster.given_ids import NEWEST
from meter.store.cluster.given_ids import USED
from meter.store.cluster.given_ids import GivenIds
from meter.store.cluster.given_ids import forgotten
from meter.store.cluster.visibility import MAY_RECOVER
from meter.store.cluster.visibility import RECOVER


class Coordinator:
    """A session of which the answers are attributes; ``asked`` are its statements."""

    def __init__(self, *, spread=True, used=(1, 1, 1, 1), given=(1, 1, 1, 1), newest="now"):
        self.spread = spread
        self.used, self.given, self.newest = used, given, newest
        self.incarnation = "00000001 noon"
        self.asked = []

    async def rows(self, statement, parameters=None):
        self.asked.append(statement)
        answers = {
            INCARNATION: (self.incarnation,),
            MAY_RECOVER: (True,),
            RECOVER: (0,),
            NEWEST: (self.newest,),
            USED: self.used,
            GIVEN: self.given,
        }
        return [answers[statement]]


class GivenIdsTests(SynchronousTestCase):
    def test_store_on_one_server_is_not_asked(self):
        session = Coordinator(spread=False)
        self.successResultOf(Deferred.fromCoroutine(GivenIds().check(session)))
        assert session.asked == []

    def test_forgotten_id_stops_writers_and_is_looked_for_again(self):
        ids, session = GivenIds(), Coordinator(used=(164, 1, 1, 7), given=(100, 1, 1, 0))
        failure = self.failureResultOf(Deferred.fromCoroutine(ids.check(session)), Unavailable)
        assert "series up to 164 (the last one given is 100), signed_batch up to 7" in str(failure.value)
        session.given = (164, 1, 1, 7)
        self.successResultOf(Deferred.fromCoroutine(ids.check(session)))

    def test_each_start_of_a_coordinator_is_checked_once_after_recovery(self):
        ids, session = GivenIds(), Coordinator()
        self.successResultOf(Deferred.fromCoroutine(ids.check(session)))
        assert session.asked.index(RECOVER) < session.asked.index(NEWEST)
        del session.asked[:]
        self.successResultOf(Deferred.fromCoroutine(ids.check(session)))
        assert session.asked == [INCARNATION]
        session.incarnation = "00000002 noon"
        self.successResultOf(Deferred.fromCoroutine(ids.check(session)))
        assert USED in session.asked

    def test_empty_store_has_forgotten_nothing(self):
        self.successResultOf(Deferred.fromCoroutine(GivenIds().check(Coordinator(newest=None, used=()))))
        assert forgotten((None, None, None, None), (0, 0, 0, 0)) == ""
