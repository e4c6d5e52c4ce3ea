"""Settings: each section of the configuration as a typed model.

:mod:`~meter.settings.root` lists the sections, :mod:`~meter.settings.section` is their base class. ``etc/meter.toml`` shows
the default and the description of each field; a test compares the two.
"""

from meter.settings.agent import ComputeSection
from meter.settings.central import OpenStackSection
from meter.settings.central import ServiceLimitsSection
from meter.settings.collector import NotificationsSection
from meter.settings.daemon import MeterSection
from meter.settings.owners import PLACEHOLDER
from meter.settings.owners import OwnerSection
from meter.settings.root import Config

__all__ = [
    "PLACEHOLDER",
    "ComputeSection",
    "Config",
    "MeterSection",
    "NotificationsSection",
    "OpenStackSection",
    "OwnerSection",
    "ServiceLimitsSection",
]
