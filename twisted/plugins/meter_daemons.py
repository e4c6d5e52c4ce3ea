"""Tells twistd of Meter's daemons. Imports nothing of Meter: listing plugins must stay cheap and install no reactor."""

from twisted.application.service import ServiceMaker

meter = ServiceMaker("Meter", "meter.taps.single", "All of Meter in one process, for one host or a first run.", "meter")
meter_compute = ServiceMaker(
    "Meter's compute agent", "meter.taps.compute", "Polls the hypervisor of this host.", "meter-compute"
)
meter_central = ServiceMaker(
    "Meter's central agent", "meter.taps.central", "Polls what belongs to no single compute node.", "meter-central"
)
meter_collector = ServiceMaker(
    "Meter's collector", "meter.taps.collector", "Writes samples from the bus into the store.", "meter-collector"
)
meter_api = ServiceMaker("Meter's API", "meter.taps.api", "Answers Ceilometer's v2 API from the store.", "meter-api")
