"""Listeners to Cinder, the block storage service."""

from meter.declarative.notifications import built_in

__all__ = ["backup_listener", "capacity_listener", "snapshot_listener", "volume_listener"]

volume_listener = built_in(__file__, "volume")
snapshot_listener = built_in(__file__, "snapshot")
backup_listener = built_in(__file__, "backup")
capacity_listener = built_in(__file__, "capacity")
