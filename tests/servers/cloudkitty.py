"""CloudKitty's collectors for Prometheus and Aetos, in a virtual environment of their own.

CloudKitty needs some hundred packages and other versions than Meter. The environment is made by the first test that asks for
it, in about a minute, and kept under ``~/.cache/meter-tests``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VERSION = "25.0.0"
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / f"meter-tests/cloudkitty-{VERSION}"

COLLECT = """
import json, sys
from datetime import datetime
from oslo_config import cfg
from cloudkitty.collector.aetos import AetosCollector
from cloudkitty.collector.prometheus import PrometheusCollector
name, url, token, metrics, begin, end, scope = sys.argv[1:]
cfg.CONF(["--config-file", "/dev/null"], project="cloudkitty")
cfg.CONF.set_override("scope_key", "project", "collect")
if name == "aetos":
    cfg.CONF.set_override("auth_type", "admin_token", "collector_aetos")
    from keystoneauth1 import loading
    cfg.CONF.register_opts(loading.get_auth_plugin_conf_options("admin_token"), "collector_aetos")
    cfg.CONF.set_override("endpoint", url, "collector_aetos")
    cfg.CONF.set_override("token", token, "collector_aetos")
    collector = AetosCollector(period=3600, conf=json.loads(metrics))
else:
    cfg.CONF.set_override("prometheus_url", url + "/api/v1", "collector_prometheus")
    if token:
        cfg.CONF.set_override("prometheus_user", "any", "collector_prometheus")
        cfg.CONF.set_override("prometheus_password", token, "collector_prometheus")
    collector = PrometheusCollector(period=3600, conf=json.loads(metrics))
points = {
    metric: [
        {"qty": str(point.qty), "groupby": dict(point.groupby), "metadata": dict(point.metadata)}
        for point in collector.fetch_all(metric, datetime.fromisoformat(begin), datetime.fromisoformat(end), scope)
    ]
    for metric in json.loads(metrics)["metrics"]
}
print(json.dumps(points))
"""


def python() -> Path:
    """Return the Python of the environment, which is made if it is not there, or only half made."""
    made = HOME / "made"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
        subprocess.run([str(HOME / "bin/pip"), "install", "-q", f"cloudkitty=={VERSION}"], check=True)
        made.touch()
    return HOME / "bin/python"
