"""The central agent as a process: against a real cloud, and several of them against a real broker."""

from __future__ import annotations

import signal
import time
from collections import Counter
from datetime import UTC
from datetime import datetime
from typing import Any

from tests.servers.openstack import PASSWORD
from tests.servers.rabbitmq import RabbitMQ
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import until

INTERVAL_SECONDS = 2.0


def cloud(openstack: Any) -> str:
    """Return the settings with which an agent reads the services of a real cloud."""
    return f"""
        [openstack]
        page_size = 2
        [openstack.auth]
        auth_url = "{openstack.auth_url}"
        username = "admin"
        password = "{PASSWORD}"
        project_name = "admin"
        """


HEARTBEAT = "meter.dependency.ready"


def slots(samples: list[dict[str, Any]]) -> Counter[int]:
    """How many polls there were in each slot of time."""
    times = {datetime.fromisoformat(each["timestamp"]).replace(tzinfo=UTC).timestamp() for each in samples}
    return Counter(int(each // INTERVAL_SECONDS) for each in times)


def leader_and_other(agents: list[Daemon]) -> tuple[Daemon, Daemon]:
    """Wait until one of two agents is the leader and the other stands by, and return them in this order."""

    def active() -> Any:
        return [
            each
            for each in agents
            if each.log.rpartition("leader election central: ")[2].startswith("this agent is the leader")
        ]

    [first] = until(active, "one of them to be the leader")
    [second] = [each for each in agents if each is not first]
    until(lambda: "on standby" in second.log, "the other to stand by")
    return first, second


def test_another_agent_goes_on_when_the_one_that_measures_is_killed(furnished: House, rabbitmq: RabbitMQ) -> None:
    # Two names of one broker count as a cluster, whose queues are quorum queues; test_an_image_that_is_deleted_between_two_leaders_ends has classic ones.
    place = f"127.0.0.1:{rabbitmq.port}"
    furnished.bus = furnished.bus.replace(place, f"{place},localhost:{rabbitmq.port}")
    furnished.daemon("meter-collector").start().until_ready()
    api = furnished.daemon("meter-api").start().until_ready()
    agents = [furnished.daemon("meter-central", f"[polling]\ninterval_seconds = {INTERVAL_SECONDS}\n") for _ in "ab"]
    for agent in agents:
        agent.start()

    first, _ = leader_and_other(agents)

    def seen() -> list[dict[str, Any]]:
        return list(api.get(f"/v2/meters/{HEARTBEAT}?limit=1000"))

    until(lambda: len(slots(seen())) >= 4, "some cycles")
    killed_at = time.time()
    first.stop(signal.SIGKILL)
    until(lambda: max(slots(seen()), default=0) > killed_at // INTERVAL_SECONDS + 3, "cycles of the other")

    found = slots(seen())
    assert set(found.values()) == {1}, found
    assert sorted(found) == list(range(min(found), max(found) + 1)), found


def test_a_check_says_aloud_what_is_insecure_and_which_window_no_comparison_would_come_of(furnished: House) -> None:
    central = furnished.daemon(
        "meter-central",
        """
        [openstack]
        insecure = true
        [openstack.auth]
        auth_url = "https://127.0.0.1:1"
        token = "t"
        [pollsters.reconciliation]
        window_seconds = 330.0
        kinds = ["image"]
        """,
    )
    checked = central.check()
    assert checked.returncode == 1
    assert "[openstack] insecure: the services' certificates are not verified" in checked.stdout + checked.stderr
    assert (
        "[pollsters.reconciliation] window_seconds: should be at least 360, not 330: 'image' is polled"
        in checked.stderr
    )


def test_images_of_a_real_cloud_are_what_glance_says(furnished: House, openstack: Any) -> None:
    images = {
        openstack.image(f"image {number} 名前", b"x" * size): size for number, size in enumerate((1, 1000, 70_000))
    }
    collector = furnished.daemon("meter-collector").start()
    api = furnished.daemon("meter-api").start().until_ready()
    central = furnished.daemon(
        "meter-central",
        f"""
        [polling]
        interval_seconds = {INTERVAL_SECONDS}
        {cloud(openstack)}""",
    ).start()
    central.until_ready()
    collector.until_ready()

    def sizes() -> dict[str, float]:
        return {each["resource_id"]: each["counter_volume"] for each in api.get("/v2/meters/image.size?limit=1000")}

    until(lambda: sizes() == images, "the sizes of all images")
    assert "no public endpoint of 'load-balancer'" in central.log

    # The token lives 20 s: it is renewed, and a new image is seen with the new one.
    renewed = 'meter_requests_total{outcome="ok",service="identity"}'
    before = central.metric(renewed)
    until(lambda: central.metric(renewed) > before, "a second token")
    images[openstack.image("late", b"x" * 5)] = 5
    until(lambda: sizes() == images, "the size of the new image")
    assert "works again" not in central.log  # no poll has failed meanwhile


def test_an_image_that_is_deleted_between_two_leaders_ends(furnished: House, openstack: Any) -> None:
    deleted, kept = (openstack.image(name, b"x" * 7) for name in ("deleted", "kept"))
    furnished.daemon("meter-collector").start()
    api = furnished.daemon("meter-api").start().until_ready()
    settings = f"[polling]\ninterval_seconds = {INTERVAL_SECONDS}\n{cloud(openstack)}"
    agents = [furnished.daemon("meter-central", settings) for _ in "ab"]
    for agent, host in zip(agents, ("central-a", "central-b"), strict=True):
        agent.host_name = host
        agent.start()
    first, second = leader_and_other(agents)

    def life(image: str) -> list[dict[str, Any]]:
        return list(api.get(f"/v2/segments?kind=image&resource_id={image}"))

    until(lambda: len(life(deleted)) == len(life(kept)) == 1, "both images to be known")
    until(
        lambda: {each["resource_id"] for each in api.get("/v2/meters/image?limit=1000")} >= {deleted, kept}, "samples"
    )
    assert second.process is not None
    second.process.send_signal(signal.SIGSTOP)  # it lists nothing until the image is deleted
    first.stop(signal.SIGKILL)
    openstack.ask("DELETE", f"{openstack.image_url}/v2/images/{deleted}", openstack.token())
    second.process.send_signal(signal.SIGCONT)

    def end(image: str) -> Any:
        [found] = life(image)
        return found["segments"][-1]["ended_told_by"]

    until(lambda: end(deleted) is not None, "the end of the deleted image")
    assert (end(deleted), end(kept)) == ("report", None)
