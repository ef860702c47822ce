"""The parts that bubblewrap's backend is made of, each for itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy_service.backends.cgroups import Cgroups
from proxy_service.backends.workspaces import Workspaces, usage
from tests.proxy_service.backends.conftest import LIMITS


def test_directories_of_dead_proxies_are_removed_and_those_of_live_ones_are_not(
    tmp_path: Path,
) -> None:
    live, other = Workspaces(tmp_path), Workspaces(tmp_path)
    live.open()
    live.create("sandbox")
    dead = tmp_path / "4711-dead"
    (dead / "sandbox").mkdir(parents=True)
    assert other.open() == ["4711-dead"]
    assert (live.directory / "sandbox" / "workspace").is_dir()
    live.close()
    other.close()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_usage_counts_what_is_there_and_stops_at_too_many_entries(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(100_000))
    (tmp_path / "loop").symlink_to(tmp_path)
    size, entries = usage(tmp_path, max_entries=100)
    assert 100_000 <= size < 200_000
    assert entries == 3
    for number in range(50):
        (tmp_path / str(number)).touch()
    assert usage(tmp_path, max_entries=10)[1] == 11


@pytest.mark.bubblewrap
def test_limits_are_those_that_the_kernel_took() -> None:
    cgroups = Cgroups("sandboxweb-test")
    try:
        if not cgroups.limits:
            return
        cgroup = cgroups.create("one", LIMITS)
        limit = next(
            path.read_text()
            for directory in cgroup.directories
            for path in (directory / "memory.limit_in_bytes", directory / "memory.max")
            if path.exists()
        )
        assert int(limit) == LIMITS.memory_bytes
        asyncio.run(cgroup.remove())
        assert not any(directory.exists() for directory in cgroup.directories)
    finally:
        cgroups.close()
