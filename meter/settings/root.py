"""The whole configuration, section by section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from meter.settings.agent import ComputeSection
from meter.settings.agent import PollingSection
from meter.settings.agent import SpoolSection
from meter.settings.api import ApiSection
from meter.settings.central import CentralSection
from meter.settings.central import OpenStackSection
from meter.settings.collector import CollectorSection
from meter.settings.collector import IdentitiesSection
from meter.settings.collector import NotificationsSection
from meter.settings.completeness import CompletenessSection
from meter.settings.daemon import BusSection
from meter.settings.daemon import ManholeSection
from meter.settings.daemon import MeterSection
from meter.settings.daemon import PluginsSection
from meter.settings.daemon import SigningSection
from meter.settings.daemon import StatusSection
from meter.settings.daemon import UnitsSection
from meter.settings.rating import RatingSection
from meter.settings.section import Section
from meter.settings.store import StoreSection


class Config(Section):
    """The whole configuration. ``pollsters`` and ``listeners`` contain the sections of plugins, which declare their own options."""

    meter: MeterSection = MeterSection()
    bus: BusSection = BusSection()
    store: StoreSection = StoreSection()
    signing: SigningSection = SigningSection()
    polling: PollingSection = PollingSection()
    spool: SpoolSection = SpoolSection()
    units: UnitsSection = UnitsSection()
    plugins: PluginsSection = PluginsSection()
    compute: ComputeSection = ComputeSection()
    central: CentralSection = CentralSection()
    openstack: OpenStackSection = OpenStackSection()
    collector: CollectorSection = CollectorSection()
    notifications: NotificationsSection = NotificationsSection()
    completeness: CompletenessSection = CompletenessSection()
    identities: IdentitiesSection = IdentitiesSection()
    rating: RatingSection = RatingSection()
    api: ApiSection = ApiSection()
    status: StatusSection = StatusSection()
    manhole: ManholeSection = ManholeSection()
    pollsters: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="[pollsters.NAME]: options of one pollster."
    )
    listeners: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="[listeners.NAME]: options of one listener."
    )

    @property
    def signing_key_file(self) -> Path:
        """Path of the generated signing key, which is used if the configuration names none."""
        return Path(self.meter.state_dir) / "signing.key"
