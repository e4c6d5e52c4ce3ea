"""OpenStack over HTTP: the only package that knows treq and Keystone.

From the outside in: :mod:`~meter.openstack.cloud` is what pollsters ask; :mod:`~meter.openstack.keystone` keeps the
token, got with :mod:`~meter.openstack.credentials`; :mod:`~meter.openstack.catalogue` says where services are;
:mod:`~meter.openstack.budget` decides when a request may go out; :mod:`~meter.openstack.http` is one exchange.
"""

from meter.openstack.credentials import Credentials
from meter.openstack.http import Http
from meter.openstack.keystone import Keystone
from meter.openstack.keystone import Token

__all__ = ["Credentials", "Http", "Keystone", "Token"]
