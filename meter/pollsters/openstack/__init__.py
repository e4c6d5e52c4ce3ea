"""Meters of the resources that OpenStack's services list: ``README.rst`` lists them, ``services.py`` defines most of them.

Each pollster has a variable of its own: ``twisted.plugin`` caches the names in this file and reads them again only when
the file changes.
"""

from meter.pollsters.openstack import services
from meter.pollsters.openstack.alarms import EVALUATION_RESULTS
from meter.pollsters.openstack.alarms import EvaluationResultsPollster
from meter.pollsters.openstack.instances import USAGE
from meter.pollsters.openstack.instances import InstancesPollster
from meter.pollsters.openstack.instances import UsagePollster
from meter.pollsters.openstack.objects import StoragePollster
from meter.pollsters.openstack.pollster import ListingPollster
from meter.pollsters.openstack.radosgw import RadosgwPollster
from meter.pollsters.openstack.reconciliation import ReconciliationPollster
from meter.pollsters.openstack.recordsets import RecordsetsPollster
from meter.pollsters.openstack.usage_audit import UsageAuditPollster

image = ListingPollster(services.IMAGE)
volume = ListingPollster(services.VOLUME)
snapshot = ListingPollster(services.SNAPSHOT)
backup = ListingPollster(services.BACKUP)
pool = ListingPollster(services.POOL)
volume_service = ListingPollster(services.VOLUME_SERVICE)
floating_ip = ListingPollster(services.FLOATING_IP)
network = ListingPollster(services.NETWORK)
subnet = ListingPollster(services.SUBNET)
port = ListingPollster(services.PORT)
router = ListingPollster(services.ROUTER)
vpn = ListingPollster(services.VPN)
vpn_connection = ListingPollster(services.VPN_CONNECTION)
firewall = ListingPollster(services.FIREWALL)
firewall_policy = ListingPollster(services.FIREWALL_POLICY)
hypervisor = ListingPollster(services.HYPERVISOR)
project = ListingPollster(services.PROJECT)
user = ListingPollster(services.USER)
loadbalancer = ListingPollster(services.LOADBALANCER)
zone = ListingPollster(services.ZONE)
recordsets = RecordsetsPollster()
share = ListingPollster(services.SHARE)
evaluation_results = EvaluationResultsPollster(EVALUATION_RESULTS)
storage = StoragePollster()
radosgw = RadosgwPollster()
instances = InstancesPollster()
reconciliation = ReconciliationPollster()
usage = UsagePollster(USAGE)
usage_audit = UsageAuditPollster()
