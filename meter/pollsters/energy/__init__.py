"""Energy of this host and of its domains, from the counters of its processors: ``README.rst`` has the meters and the method."""

from meter.pollsters.energy.pollster import EnergyPollster

energy = EnergyPollster()
