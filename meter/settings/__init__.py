"""The settings: every section of the configuration as a typed model.

:mod:`~meter.settings.root` has them all, :mod:`~meter.settings.section` is what each is made of. A field's default and
description are what ``etc/meter.toml`` shows; a test keeps the two equal.
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
