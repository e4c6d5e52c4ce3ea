"""Backups of a store under load, and restores of them elsewhere: the commands of docs/upgrade.rst, and what is there afterwards."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos.site import Known
from tests.chaos.site import until
from tests.servers.postgresql import PostgreSQL
from tests.upgrade.page import block
from tests.upgrade.page import blocks
from tests.upgrade.rolling_site import CommandFailed

EXAMPLE_TIME = "2026-11-28 14:00:00+00"


class BackedUp:
    """A PostgreSQL server whose changes pgBackRest archives, and clusters that are restored from it."""

    def __init__(self, binaries: Path, directory: Path) -> None:
        directory.mkdir()
        directory.chmod(0o777)
        self._binaries = binaries
        self.directory = directory
        self.config = directory / "pgbackrest.conf"
        (directory / "source").mkdir()
        push = f"pgbackrest --config={self.config} --stanza=meter archive-push %p"
        [written] = [text for text in blocks("ini") if "archive_command" in text]
        if "archive_command = 'pgbackrest --stanza=meter archive-push %p'" not in written:
            raise CommandFailed("docs/upgrade.rst has another archive_command than is tried here")
        settings = {
            "archive_mode": "on",
            "archive_command": push,
            "full_page_writes": "on",
            "unix_socket_directories": str(directory),
        }
        self.server = PostgreSQL(binaries, directory / "source", settings)
        self._restored: list[PostgreSQL] = []
        self._write_config(self.config, directory / "source/data")

    def _write_config(self, file: Path, data: Path) -> None:
        """Write the configuration of the page, with the paths and the port of this server."""
        [written] = [text for text in blocks("ini") if "pg1-path" in text]
        config = configparser.ConfigParser()
        config.read_string(written)
        config["global"].update(
            {
                "repo1-path": str(self.directory / "repository"),
                "log-path": str(self.directory / "log"),
                "lock-path": str(self.directory / "lock"),
                "spool-path": str(self.directory / "spool"),
                "log-level-console": "warn",
            }
        )
        config["meter"].update(
            {
                "pg1-path": str(data),
                "pg1-port": str(self.server.port),
                "pg1-socket-path": str(self.directory),
                "pg1-user": "meter",
            }
        )
        with file.open("w", encoding="utf-8") as written_file:
            config.write(written_file)

    def run(self, commands: str, **variables: str) -> str:
        """Run commands of the page as the server's user; :class:`CommandFailed` if one fails."""
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
        environment: Mapping[str, str] = {
            "PATH": f"{self._binaries}:/usr/bin:/bin",
            "PGBACKREST_CONFIG": str(self.config),
            **variables,
        }
        done = subprocess.run(
            ["sh", "-eu", "-c", commands],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            env=environment,
            **identity,
        )
        if done.returncode:
            raise CommandFailed(f"{commands}: {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def archive_all(self) -> None:
        """Wait until all that has been committed is archived."""
        [[segment]] = self.server.execute("SELECT pg_walfile_name(pg_switch_wal())")
        until(
            lambda: self.server.execute(f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver") == [(True,)],
            f"{segment} to be archived",
            120,
        )

    def restored_to(self, moment: str) -> PostgreSQL:
        """Return a running cluster that has been restored to a point in time."""
        other = self.empty_cluster("restored")
        data = self.directory / "restored/data"
        shutil.rmtree(data)
        config = self.directory / "restored.conf"
        self._write_config(config, data)
        commands = block("pgbackrest --stanza=meter --type=time").replace(EXAMPLE_TIME, moment)
        # The option, unlike the environment, is also that of the command with which PostgreSQL gets what was archived.
        commands = commands.replace("pgbackrest ", f"pgbackrest --config={config} ")
        self.run(f"umask 077; mkdir {data}\n{commands}")
        other.start()
        until(lambda: other.execute("SELECT pg_is_in_recovery()") == [(False,)], "recovery to end", 120)
        return other

    def empty_cluster(self, name: str) -> PostgreSQL:
        """Return another cluster, which is not started."""
        directory = self.directory / name
        directory.mkdir()
        other = PostgreSQL(self._binaries, directory)
        self._restored.append(other)
        return other

    def close(self) -> None:
        """End all servers."""
        for server in (*self._restored, self.server):
            server.kill()


def missing_and_added(expected: Counter[Known], found: Counter[Known]) -> list[str]:
    """Return which samples a restored store has not, or has besides."""
    return [
        *(f"not restored: {'/'.join(each)}" for each in sorted((expected - found).keys())[:5]),
        *(f"stored after the point in time: {'/'.join(each)}" for each in sorted((found - expected).keys())[:5]),
    ]
