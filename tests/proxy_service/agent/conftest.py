"""Agents as processes of this machine, each ended with all its descendants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy_service.agent.client import AgentProcess


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Return a function that starts an agent and says hello."""
    agents: list[AgentProcess] = []

    def start(**config: Any) -> AgentProcess:
        workdir = tmp_path / "work"
        workdir.mkdir(exist_ok=True)
        agents.append(AgentProcess(workdir, **config))
        agents[-1].attach()
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


@pytest.fixture
def agent(start_agent: Callable[..., AgentProcess]) -> AgentProcess:
    return start_agent()
