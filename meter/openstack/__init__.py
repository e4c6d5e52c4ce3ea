"""OpenStack over HTTP: the only package that knows treq and Keystone.

From the outside in: :mod:`~meter.openstack.cloud` is what pollsters ask, :mod:`~meter.openstack.listing` what it gives them
page by page; :mod:`~meter.openstack.keystone` keeps the token, got with :mod:`~meter.openstack.credentials`;
:mod:`~meter.openstack.catalogue` says where services are; :mod:`~meter.http.service_limiter` decides when a request may go out; :mod:`~meter.http.exchange` is one exchange.
"""

from meter.openstack.catalogue import NoService
from meter.openstack.cloud import Cloud
from meter.openstack.credentials import Credentials
from meter.openstack.interfaces import IDependsOnIntervals
from meter.openstack.interfaces import IOpenStack
from meter.openstack.keystone import Keystone
from meter.openstack.keystone import Token
from meter.openstack.listing import Listing
from meter.openstack.listing import Page

__all__ = [
    "Cloud",
    "Credentials",
    "IDependsOnIntervals",
    "IHttpClient",
    "IOpenStack",
    "Keystone",
    "Listing",
    "NoService",
    "Page",
    "Token",
]
