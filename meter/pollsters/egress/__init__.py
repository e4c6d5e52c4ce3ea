"""Traffic of instances by the class of its destination, counted by nftables: ``README.rst`` has the meters."""

from meter.pollsters.egress.pollster import EgressPollster

egress = EgressPollster()
