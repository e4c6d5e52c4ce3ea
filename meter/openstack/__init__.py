"""A client of OpenStack's APIs: the only package that knows Keystone. Requests go through :mod:`meter.http`.

- :mod:`~meter.openstack.cloud`: requests and listings for pollsters, with one token.
- :mod:`~meter.openstack.listing`: a listing and its pages.
- :mod:`~meter.openstack.keystone`: tokens; :mod:`~meter.openstack.credentials`: how to get one.
- :mod:`~meter.openstack.catalogue`: the URLs of services.
- :mod:`~meter.openstack.validation`: validates the tokens of the API's clients.
- :mod:`~meter.openstack.sign_in`: tokens for people who sign in to the pages of the API.
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
    "IOpenStack",
    "Keystone",
    "Listing",
    "NoService",
    "Page",
    "Token",
]
