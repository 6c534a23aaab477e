"""A PostgreSQL server for one test run: its own cluster in a temporary folder, on a free loopback port."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.ports import free_port

USER = "gateway"
START_S = 60.0


@dataclass(frozen=True)
class PostgresServer:
    """A running server that trusts everybody on loopback."""

    port: int

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://{USER}@127.0.0.1:{self.port}/{database}"

    async def connect(self, database: str = "postgres") -> asyncpg.Connection:
        return await asyncpg.connect(host="127.0.0.1", port=self.port, user=USER, database=database)

    async def create_database(self) -> str:
        """A new empty database; returns its name."""
        name = f"test_{secrets.token_hex(6)}"
        connection = await self.connect()
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        return name


@contextmanager
def running_postgres(binaries: Path) -> Iterator[PostgresServer]:
    """Make a cluster, start it, and take both away at the end. PostgreSQL refuses to run as root."""
    owner = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="gateway-pg-"))
    if owner:
        account = pwd.getpwnam(owner)
        os.chown(folder, account.pw_uid, account.pw_gid)
    data, log = folder / "data", folder / "log"
    try:
        subprocess.run(
            [str(binaries / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            user=owner,
            cwd=folder,
            capture_output=True,
        )
        port = free_port()
        with log.open("wb") as output:
            server = subprocess.Popen(
                [
                    *(str(binaries / "postgres"), "-D", str(data), "-p", str(port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                    *("-c", "fsync=off", "-c", "max_connections=40", "-c", "shared_buffers=16MB"),
                ],
                user=owner,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until_ready(binaries, port, server, log)
            yield PostgresServer(port)
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder)


def wait_until_ready(binaries: Path, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    question = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(question, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL does not start:\n{log.read_text()}")
        time.sleep(0.05)
