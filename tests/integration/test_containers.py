"""What a person sees with Docker's own tools: a labelled container while the session lives, none after."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx
import pytest

from tests.integration.conftest import DOCKER
from tests.integration.servers import Servers
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("servers", [DOCKER], indirect=True)


def docker(*arguments: str) -> str:
    """Run Docker's own command line."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def containers(*labels: str) -> list[str]:
    """Return the ids of the running containers with these labels."""
    filters = [part for label in labels for part in ("--filter", f"label={label}")]
    return docker("ps", "-q", "--no-trunc", *filters).split()


def sandbox_of(servers: Servers, session_id: str) -> str:
    """Return the name of a session's sandbox, as the proxy knows it."""
    with servers.proxy_client() as proxy:
        return str(proxy.get(f"/sessions/{session_id}").json()["sandbox"])


def test_a_container_lives_as_long_as_its_session(servers: Servers, api: httpx.Client, session_id: str) -> None:
    name = f"sandboxweb.name={sandbox_of(servers, session_id)}"
    instance = f"sandboxweb.instance=test-{servers.proxy_port}"
    (container,) = containers("sandboxweb.managed=true", instance, name)

    assert api.delete(f"/sessions/{session_id}").json()["status"] == "terminated"
    wait_until(lambda: container not in containers("sandboxweb.managed=true"), what="the container to be gone")
    wait_until(lambda: container not in docker("ps", "-aq", "--no-trunc"), what="the container to be removed")


def test_a_container_has_no_network_no_privileges_and_limits(servers: Servers, session_id: str) -> None:
    (container,) = containers(f"sandboxweb.name={sandbox_of(servers, session_id)}")
    facts: dict[str, Any] = json.loads(docker("inspect", container))[0]["HostConfig"]
    assert facts["NetworkMode"] == "none"
    assert facts["ReadonlyRootfs"] is True
    assert not facts["Privileged"]
    assert facts["CapDrop"] == ["ALL"]
    assert any("no-new-privileges" in option for option in facts["SecurityOpt"])
    assert facts["Memory"] == facts["MemorySwap"] > 0
    assert 0 < facts["PidsLimit"] < 10_000
    assert facts["NanoCpus"] > 0
