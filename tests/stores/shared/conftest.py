"""Fixtures of the tests of many hosts: one real server, and a cache of its own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.shared_hosts import Host, Server


@pytest.fixture(scope="module")
def long_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(long_server: Server) -> Server:
    long_server.client().flushall()
    return long_server


@pytest.fixture
def make_host(server: Server, tmp_path: Path) -> Callable[[str], Host]:
    return lambda name: Host(tmp_path / name, server)


@pytest.fixture
def hosts(make_host: Callable[[str], Host]) -> list[Host]:
    """Return two hosts that follow."""
    made = [make_host("one"), make_host("two")]
    for host in made:
        host.read()
    return made
