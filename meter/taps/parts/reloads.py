"""Reloading the configuration: the settings that concern the whole daemon, and the service that ends with it."""

from __future__ import annotations

from twisted.application.service import Service

from meter.daemon.logs import set_levels
from meter.daemon.reload import Reload
from meter.settings import Config
from meter.settings.config_file import has_key
from meter.settings.config_file import keyring
from meter.taps.daemon import Daemon

PLUGIN_SETTINGS = ("plugins.disable", "pollsters.*", "listeners.*")


class ReloadService(Service):
    """Ends reloading when the daemon stops; it is the last one, so it stops first."""

    def __init__(self, reload: Reload) -> None:
        self.setName("reload")
        self._reload = reload

    def stopService(self) -> None:
        """Reload no more."""
        super().stopService()
        self._reload.end()


def add_reloads(daemon: Daemon) -> None:
    """Add what reloads log levels, signing keys and plugins. Call it last, when all parts have been added."""
    daemon.reload.add(["meter.log_levels"], lambda config: set_levels(config.meter.log_levels))
    if daemon.uses_keys:
        daemon.reload.add(["signing.*"], lambda config: _change_keys(daemon, config))
    if daemon.activations:
        daemon.reload.add(PLUGIN_SETTINGS, lambda config: _change_plugins(daemon, config))
    ReloadService(daemon.reload).setServiceParent(daemon.root)


async def _change_keys(daemon: Daemon, config: Config) -> None:
    if not has_key(config):
        raise ValueError("no signing key is configured, and state_dir has none that was generated")
    daemon.keys.take_over(keyring(config, make=False))
    for changed in daemon.key_changes:
        await changed(config)


async def _change_plugins(daemon: Daemon, config: Config) -> None:
    plugins = daemon.reconfigured_plugins(config)
    daemon.use_plugins(plugins)
    for activation in daemon.activations:
        kinds = {each.kind.name for each in activation.decisions}
        await activation.reconsider([each for each in plugins if each.kind.name in kinds])
