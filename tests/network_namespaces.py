"""A host and its guests for tests, each a network namespace: a guest's interface is a veth whose end on the host is its tap.

Nothing outside is touched: the namespaces have no other devices, and ``nft`` runs in that of the host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from meter.interfaces import Domain
from tests.servers import not_allowed
from tests.servers import not_installed

SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
sender = socket.socket(family, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
if sys.argv[1]:
    sender.bind((sys.argv[1], 0))
for _ in range(int(sys.argv[4])):
    sender.sendto(bytes(int(sys.argv[3])), (sys.argv[2], 9))
"""
SPOOF = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
header = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 253, 0, 0]) + socket.inet_aton(sys.argv[1]) + socket.inet_aton(sys.argv[2])
sender.sendto(header + bytes(int(sys.argv[3])), (sys.argv[2], 0))
"""

TAGGED = """
import socket, struct, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind(("eth0", 0))
ip = bytes([0x45, 0]) + struct.pack(">HHHBBH", 1000, 0, 0, 64, 253, 0)
ip += socket.inet_aton("10.0.0.2") + socket.inet_aton(sys.argv[1]) + bytes(980)
tags = [struct.pack(">HH", 0x88A8, 5), struct.pack(">HH", 0x8100, 7)]
tagged = b"".join(tags[len(tags) - int(sys.argv[2]):])
sender.send(bytes.fromhex("020000000001020000000002") + tagged + struct.pack(">H", 0x0800) + ip)
"""

HOST_MAC, GUEST_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"

XML = """<domain><name>{name}</name><devices>
  <interface type='bridge'><mac address='{mac}'/><target dev='{tap}'/><model type='virtio'/></interface>
</devices></domain>"""


class NamespaceHost:
    """The host: ``nft`` is the command that runs the program there."""

    def __init__(self) -> None:
        self.name = f"meter-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.nft = ("ip", "netns", "exec", self.name, "nft")
        self._guests: list[str] = []
        self._add(self.name)
        try:
            self.ip("link set lo up")
        except AssertionError:
            self.close()
            raise

    def run(self, *command: str, namespace: str = "", stdin: str = "") -> str:
        """Run a command on the host or in another namespace; return its output."""
        done = subprocess.run(
            ["ip", "netns", "exec", namespace or self.name, *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def ip(self, command: str, *, namespace: str = "") -> None:
        """Run ``ip``."""
        self.run("ip", *command.split(), namespace=namespace)

    def devices(self) -> dict[str, int]:
        """Return the numbers of the devices of the host, by name."""
        return {each["ifname"]: each["ifindex"] for each in json.loads(self.run("ip", "-json", "link"))}

    def received(self, tap: str) -> tuple[int, int]:
        """Return the packets and bytes that the host has received from a tap, by the tap's own counters."""
        return self._statistics(tap, "rx")

    def sent(self, tap: str) -> tuple[int, int]:
        """Return the packets and bytes that the host has sent to a tap."""
        return self._statistics(tap, "tx")

    def _statistics(self, tap: str, kind: str) -> tuple[int, int]:
        [link] = json.loads(self.run("ip", "-json", "-s", "link", "show", tap))
        return link["stats64"][kind]["packets"], link["stats64"][kind]["bytes"]

    def plug(self, tap: str, guest: str = "") -> str:
        """Give a guest an interface with the tap ``tap``; return the name of its namespace."""
        namespace = guest or f"{self.name}-{tap}"
        if namespace not in self._guests:
            self._add(namespace)
            self._guests.append(namespace)
        self.ip(f"link add {tap} address {HOST_MAC} type veth peer name eth0 address {GUEST_MAC} netns {namespace}")
        for place, device, four, six, other, other_mac in (
            (self.name, tap, "10.0.0.1", "fd00::1", "2", GUEST_MAC),
            (namespace, "eth0", "10.0.0.2", "fd00::2", "1", HOST_MAC),
        ):
            self.ip(f"link set {device} addrgenmode none", namespace=place)
            self.ip(f"link set {device} up", namespace=place)
            self.ip(f"addr add {four}/24 dev {device}", namespace=place)
            self.ip(f"addr add {six}/64 dev {device} nodad", namespace=place)
            self.ip(f"neigh add 10.0.0.{other} lladdr {other_mac} dev {device} nud permanent", namespace=place)
            self.ip(f"neigh add fd00::{other} lladdr {other_mac} dev {device} nud permanent", namespace=place)
        self.ip("route add default via 10.0.0.1", namespace=namespace)
        self.ip("route add default via fd00::1", namespace=namespace)
        return namespace

    @contextmanager
    def having(self, device: str) -> Iterator[None]:
        """Have a device of the machine for a time."""
        subprocess.run(["ip", "link", "set", device, "netns", self.name], check=True)
        try:
            self.ip(f"link set {device} up")
            yield
        finally:
            self.ip(f"link set {device} netns {os.getpid()}")

    def unplug(self, tap: str) -> None:
        """Take the tap away, as when a domain stops."""
        self.ip(f"link del {tap}")

    def send(self, namespace: str, to: str, payload_bytes: int, packets: int = 1, *, source: str = "") -> None:
        """Send UDP packets from a namespace."""
        self.run(sys.executable, "-S", "-c", SEND, source, to, str(payload_bytes), str(packets), namespace=namespace)

    def send_spoofed(self, namespace: str, source: str, to: str, payload_bytes: int) -> None:
        """Send a packet of IPv4 with a source that the sender does not have."""
        self.run(sys.executable, "-S", "-c", SPOOF, source, to, str(payload_bytes), namespace=namespace)

    def send_tagged(self, namespace: str, to: str, tags: int) -> None:
        """Send a packet of 1000 bytes with VLAN tags."""
        self.run(sys.executable, "-S", "-c", TAGGED, to, str(tags), namespace=namespace)

    def close(self) -> None:
        """Remove all namespaces."""
        for each in (*self._guests, self.name):
            subprocess.run(["ip", "netns", "del", each], check=False)

    @staticmethod
    def _add(namespace: str) -> None:
        subprocess.run(["ip", "netns", "add", namespace], check=True, capture_output=True)


def domain_with(tap: str, name: str = "web", run: int = 1, **changes: object) -> Domain:
    """Return a running domain with one interface, as libvirt lists it."""
    stats = {"state.state": 1, "state.reason": 1, "net.count": 1, "net.0.name": tap, "vcpu.current": 1}
    return Domain(
        uuid=f"uuid-of-{name}",
        name=name,
        xml=XML.format(name=name, tap=tap, mac=GUEST_MAC),
        stats={**stats, **changes},
        run=run,
        process=f"boot.{name}.{run}",
    )


@contextmanager
def namespace_host() -> Iterator[NamespaceHost]:
    """A host; skips where it cannot be made, fails there with ``METER_REQUIRE_SERVERS=1`` if it could be installed."""
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            not_installed(f"{program} is not installed: apt-get install --no-install-recommends {package}")
    try:
        host = NamespaceHost()
    except (subprocess.CalledProcessError, AssertionError):
        not_allowed("only root may have network namespaces")
    try:
        table = "add table netdev probe\nadd chain netdev probe lo { type filter hook egress device lo priority 0; }\n"
        tried = subprocess.run([*host.nft, "-f", "-"], input=table, capture_output=True, text=True, check=False)
        if tried.returncode:
            not_allowed(f"this kernel has no nftables at devices: {tried.stderr}")
        host.run("nft", "delete", "table", "netdev", "probe")
        yield host
    finally:
        host.close()
