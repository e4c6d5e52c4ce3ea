"""The HTTP API: what Ceilometer's v2 API served, answered from Meter's store.

A request's road: :mod:`.application` routes it by :mod:`.declarations`; :mod:`.requests` takes out what it holds, with
:mod:`.media_types`, :mod:`.question_body` and :mod:`.strict_json`; :mod:`.arguments`, :mod:`.simple_query`,
:mod:`.complex_query` and :mod:`.times` read it; :mod:`.visibility` decides what the requester may see; :mod:`.answers` and
:mod:`.statistics` ask the store, :mod:`.posting` takes what is sent; :mod:`.rendering` shapes the answer
(:mod:`.flattening` its metadata), :mod:`.faults` what went wrong. :mod:`.exporting` and :mod:`.live` answer with streams,
:mod:`.openapi` describes it all. :mod:`.serving` puts it on the network.

Importing this package imports klein 24.8, which installs the global reactor: choose the reactor first.
"""

from meter.api.application import Api
from meter.api.auth.keystone import LOOK_SECONDS
from meter.api.auth.keystone import KeystoneTokens
from meter.api.auth.tokens import StaticToken
from meter.api.auth.tokens import StaticTokens
from meter.api.auth.visibility import Everyone
from meter.api.auth.visibility import IAuth
from meter.api.auth.visibility import Requester
from meter.api.ingest import SampleIngest
from meter.api.request.context import Limits
from meter.api.serving import site

__all__ = [
    "LOOK_SECONDS",
    "Api",
    "Everyone",
    "IAuth",
    "KeystoneTokens",
    "Limits",
    "Requester",
    "SampleIngest",
    "StaticToken",
    "StaticTokens",
    "site",
]
