"""A private cluster of RabbitMQ for tests: three nodes on loopback that any pair of proxies can cut off from each other.

Nodes of Erlang ask the name server ``epmd`` for each other's ports. Here each node has a name server of its own, in which the names
of the others are registered with the ports of proxies: what one node says to another goes through a proxy of that pair. A node
that is cut off hears nothing and is not refused, as if its cable were pulled.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex

from tests.servers.rabbitmq import RabbitMQ
from tests.servers.tcp_proxy import DOWN
from tests.servers.tcp_proxy import UP
from tests.servers.tcp_proxy import TcpProxy

NODES = 3
TICK_SECONDS = 10
"""After a quarter more than this a node that is silent is taken for down; 60 s by default."""

WHOLE_SECONDS = 120.0

SETTINGS = """
cluster_partition_handling = pause_minority
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.discovery_retry_limit = 20
cluster_formation.discovery_retry_interval = 500
"""
"""``pause_minority`` makes a node that sees less than half of the others close its connections, so that clients look for another one."""


class RabbitMQCluster:
    """``nodes`` are servers of one cluster. Its URLs name them all, so it serves where one server does."""

    def __init__(self, sbin: Path, directory: Callable[[str], Path]) -> None:
        cookie = token_hex(16)
        arguments = f"-kernel net_ticktime {TICK_SECONDS}"
        self.nodes = [
            RabbitMQ(sbin, directory(f"meter-rabbitmq-{number}-"), cookie=cookie, arguments=arguments)
            for number in range(1, NODES + 1)
        ]
        names = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {node.node}\n"
            for number, node in enumerate(self.nodes, 1)
        )
        for node in self.nodes:
            node.configure(SETTINGS + names)
        self._lines: dict[tuple[str, str], TcpProxy] = {}
        self._registrations: list[socket.socket] = []

    @property
    def port(self) -> int:
        """The port of the first node."""
        return self.nodes[0].port

    @property
    def url(self) -> str:
        """The ``/`` virtual host at all nodes."""
        return self._at_all(self.nodes[0].url)

    def vhost(self) -> str:
        """Make an empty virtual host and return its URL, with all nodes."""
        url = self.nodes[0].vhost()
        name = url.rpartition("/")[2]
        # RabbitMQ starts it on all nodes at once, also on those that have not heard of it yet: there it stays down.
        for node in self.nodes:
            _until(lambda node=node: _starts(node, name), f"the virtual host {name}")
        return self._at_all(url)

    def start(self) -> None:
        """Start all nodes, one after another, and return when they are a cluster."""
        for node in self.nodes:
            node.start_name_server()
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    line = self._lines[node.node, other.node] = TcpProxy(other.distribution_port)
                    self._registrations.append(register(node.epmd_port, other.node.partition("@")[0], line.port))
        for node in self.nodes:
            node.start()
        self.until_whole()

    def until_whole(self) -> None:
        """Return when each node sees all others."""
        _until(lambda: all(self._sees_all(node) for node in self.nodes), "a cluster of all nodes")

    def node_at(self, port: int) -> RabbitMQ:
        """Return the node that clients find at ``port``."""
        return next(node for node in self.nodes if node.port == port)

    def cut_off(self, node: RabbitMQ) -> None:
        """Pass nothing on between ``node`` and the others, until :meth:`heal`."""
        for pair, line in self._lines.items():
            if node.node in pair:
                line.hold(UP)
                line.hold(DOWN)

    def heal(self) -> None:
        """Let all nodes hear each other again. Connections from before end, as they would after so long a silence."""
        for line in self._lines.values():
            if line.held:
                line.cut()
                line.release()

    def close(self) -> None:
        """Kill all nodes, and end the proxies."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(RabbitMQ.close, self.nodes))
        for registration in self._registrations:
            registration.close()
        for line in self._lines.values():
            line.close()

    def _at_all(self, url: str) -> str:
        first, *others = self.nodes
        places = ",".join(f"127.0.0.1:{node.port}" for node in (first, *others))
        return url.replace(f"127.0.0.1:{first.port}", places)

    def _sees_all(self, node: RabbitMQ) -> bool:
        return _is_ok(node, f"case length(rabbit_nodes:all_running()) of {len(self.nodes)} -> ok; _ -> wait end.")


def _starts(node: RabbitMQ, vhost: str) -> bool:
    return _is_ok(
        node,
        f'rabbit_vhost_sup_sup:start_vhost(<<"{vhost}">>), true = rabbit_vhost_sup_sup:is_vhost_alive(<<"{vhost}">>), ok.',
    )


def _is_ok(node: RabbitMQ, expression: str) -> bool:
    try:
        node.call(expression)
    except AssertionError:
        return False
    return True


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WHOLE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {WHOLE_SECONDS:g} s for {what}")
        time.sleep(0.2)


def register(epmd_port: int, name: str, port: int) -> socket.socket:
    """Tell the name server that the node ``name`` listens on ``port``, for as long as the socket that it returns is open."""
    registration = socket.create_connection(("127.0.0.1", epmd_port), timeout=10)
    encoded = name.encode("ascii")
    # ALIVE2_REQ: a normal node, TCP, of distribution protocols 5 to 6, and nothing extra.
    request = struct.pack(f"!BHBBHHH{len(encoded)}sH", 120, port, 77, 0, 6, 5, len(encoded), encoded, 0)
    registration.sendall(struct.pack("!H", len(request)) + request)
    answer = registration.recv(16)
    if len(answer) < 2 or answer[0] not in (118, 121) or answer[1] != 0:
        raise RuntimeError(f"epmd does not register {name}: {answer!r}")
    return registration


def started(sbin: Path, directory: Callable[[str], Path]) -> RabbitMQCluster:
    """Return a cluster that runs."""
    cluster = RabbitMQCluster(sbin, directory)
    try:
        cluster.start()
    except BaseException:
        cluster.close()
        raise
    return cluster
