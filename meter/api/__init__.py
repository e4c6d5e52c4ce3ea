"""The HTTP API: Ceilometer's v1 and v2 APIs over Meter's store.

A request passes :mod:`.site` (limits on sizes and times), :mod:`.root_resource` (request id, CORS) and
:mod:`.application`, which routes it by :mod:`.operations`: :mod:`.auth` identifies the requester, :mod:`.admission` gives
it a place among those in progress, :mod:`.request` parses it into a context, and one of :mod:`.handlers` queries the
store, through :mod:`.auth.visibility`, or passes samples to :mod:`.ingest`. :mod:`.sending` sends the response, or
:mod:`.failures` that of a failure. :mod:`.rendering` has the JSON schemas of the responses, :mod:`.streaming` exports and
server-sent events, :mod:`.errors` the error responses. :mod:`.openapi` describes all operations.

Importing this package imports klein 24.8, which installs the global reactor: choose the reactor first.
"""

from meter.api.application import Api
from meter.api.auth.keystone import PROBE_SECONDS
from meter.api.auth.keystone import AdminRule
from meter.api.auth.keystone import KeystoneTokens
from meter.api.auth.requester import IAuth
from meter.api.auth.requester import NoAuth
from meter.api.auth.requester import Requester
from meter.api.auth.static_tokens import StaticToken
from meter.api.auth.static_tokens import StaticTokens
from meter.api.auth.stored_tokens import StoredTokens
from meter.api.auth.validation_limiter import ValidationLimits
from meter.api.client_address import ClientAddresses
from meter.api.ingest import SampleIngest
from meter.api.limits import RequestLimits
from meter.api.posted_samples import PostedSampleRules
from meter.api.prometheus.limits import PromqlLimits
from meter.api.request.host import HostPolicy
from meter.api.site import make_site

__all__ = [
    "PROBE_SECONDS",
    "AdminRule",
    "Api",
    "ClientAddresses",
    "HostPolicy",
    "IAuth",
    "KeystoneTokens",
    "NoAuth",
    "PostedSampleRules",
    "PromqlLimits",
    "RequestLimits",
    "Requester",
    "SampleIngest",
    "StaticToken",
    "StaticTokens",
    "StoredTokens",
    "ValidationLimits",
    "make_site",
]
