"""Which libvirt is meant by ``auto``, on real sockets."""

from __future__ import annotations

import socket
from pathlib import Path

from meter.hypervisor import resolve_uri


def test_auto_is_the_system_uri_where_a_daemon_answers(tmp_path: Path) -> None:
    path = str(tmp_path / "libvirt-sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        assert resolve_uri("auto", sockets=(str(tmp_path / "none"), path)) == (
            "qemu:///system",
            f"a libvirt daemon answers at {path}",
        )


def test_stale_socket_does_not_count(tmp_path: Path) -> None:
    path = str(tmp_path / "libvirt-sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
    assert resolve_uri("auto", sockets=(path,))[0] == "test:///default"
