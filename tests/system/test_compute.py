"""The compute agent as it runs: what lives between two cycles is metered, and so is what belongs to nobody."""

from __future__ import annotations

from tests.servers.libvirt import Libvirtd
from tests.system.daemons import STOPPED
from tests.system.daemons import House
from tests.system.daemons import until

CONFIG = """
[compute]
libvirt_uri = "{uri}"
default_project_id = "lab"
[[compute.owners]]
name = '(?P<team>[a-z]+)-\\d+'
project_id = "team-{{{{team}}}}"
[polling]
interval_seconds = 3600.0
intervals = {{{{ "vcpus" = 1.0 }}}}
"""


def test_a_domain_that_lives_between_two_cycles_leaves_its_start_its_end_and_its_owner(
    furnished: House, libvirtd: Libvirtd
) -> None:
    collector = furnished.daemon("meter-collector").start()
    api = furnished.daemon("meter-api").start()
    compute = furnished.daemon("meter-compute", CONFIG.format(uri=libvirtd.uri)).start()
    for daemon in (collector, api, compute):
        daemon.until_ready()
    until(lambda: compute.metric("meter_polling_cycles_total"), "the only cycle of an hour")

    with libvirtd.guest("web-7", metadata="") as uuid:
        until(lambda: api.get(f"/v2/meters/vcpus?q.field=resource&q.value={uuid}"), "a poll of an interval of its own")
        libvirtd.virsh("destroy", "web-7")

        states = until(
            lambda: [
                sample
                for sample in [api.get(f"/v2/meters/power.state?q.field=resource&q.value={uuid}")]
                if {1, 5} <= {each["counter_volume"] for each in sample}
            ],
            "the end of the domain",
        )[0]

    assert {each["project_id"] for each in states} == {"team-web"}
    assert states[0]["counter_volume"] == 5
    assert states[0]["resource_metadata"]["event"] == "stopped (destroyed)"
    assert api.get(f"/v2/meters/cpu?q.field=resource&q.value={uuid}")
    for daemon in (compute, collector, api):
        assert daemon.stop() in STOPPED, daemon.log
        assert "Traceback" not in daemon.log
