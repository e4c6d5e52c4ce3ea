"""Energy and power of whole hosts, as their BMCs measure them: ``README.rst`` has the meters."""

from meter.pollsters.redfish.pollster import RedfishPollster

redfish = RedfishPollster()
