"""Faults of a cluster of RabbitMQ: done to a site of which the queues are quorum queues, by the nodes that its daemons are connected to.

Daemons know all nodes. What is on its way to and from a node that goes away is sent again, over another one.
"""

from __future__ import annotations

import re
import time

from tests.chaos.site import Site
from tests.chaos.site import until
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.rabbitmq_cluster import RabbitMQCluster
from tests.system.daemons import Daemon

CUT_OFF_SECONDS = 5.0
"""How long a node stays cut off when samples are stored again."""


def node_of(site: Site, daemon: Daemon, purpose: str) -> RabbitMQ:
    """Return the node that ``daemon`` is connected to for ``purpose``, by its log."""
    ports = re.findall(rf"{purpose}: connected to RabbitMQ \S+ at 127\.0\.0\.1:(\d+),", daemon.log)
    cluster: RabbitMQCluster = site.rabbitmq
    return cluster.node_at(int(ports[-1]))


def nodes_die(site: Site) -> None:
    """One after another, each started again when samples are stored without it.

    First the node that the agent publishes to, then that which the collector consumes from, and the one that remains.
    """
    cluster: RabbitMQCluster = site.rabbitmq
    killed: list[RabbitMQ] = []
    for daemon, purpose in ((site.agent, "publishing"), (site.collector, "consuming"), (site.agent, "publishing")):
        node, whose = node_of(site, daemon, purpose), f"of {daemon.name}, {purpose},"
        if node in killed:
            node, whose = next(each for each in cluster.nodes if each not in killed), "that remained"
        killed.append(node)
        node.kill()
        seconds = site.seconds_until_stored()
        site.notes.append(f"stored again {seconds:.1f} s after the node {whose} was killed")
        node.start()
        cluster.until_whole()


def node_is_cut_off(site: Site) -> None:
    """The one that the agent publishes to, and then the one that the collector consumes from, until samples have been stored without it."""
    cluster: RabbitMQCluster = site.rabbitmq
    for daemon, purpose in ((site.agent, "publishing"), (site.collector, "consuming")):
        node = node_of(site, daemon, purpose)
        cluster.cut_off(node)
        seconds = site.seconds_until_stored()
        site.notes.append(f"stored again {seconds:.1f} s after the node of {daemon.name}, {purpose}, was cut off")
        until(lambda node=node: not node.accepts, "the node that is cut off to close its port")
        time.sleep(CUT_OFF_SECONDS)
        cluster.heal()
        until(lambda node=node: node.accepts, "the node to open its port again")
        cluster.until_whole()
