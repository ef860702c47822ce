"""llm-sandbox's own sessions, unchanged, on top of the agent."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from llm_sandbox import ArtifactSandboxSession, SandboxSession
from llm_sandbox.backends import get_backend
from llm_sandbox.exceptions import NotOpenSessionError, SandboxTimeoutError
from llm_sandbox.security import RestrictedModule, SecurityIssueSeverity, SecurityPattern, SecurityPolicy

from proxy_service.backends.registry import register

register()

BACKENDS = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("podman", marks=pytest.mark.podman),
]


def options(name: str, request: pytest.FixtureRequest, image: str) -> dict[str, Any]:
    """Return what a session of a backend is made with."""
    made: dict[str, Any] = {"backend": f"sandboxweb-{name}", "lang": "python"}
    if name != "bubblewrap":
        made["image"] = image
    if name == "podman":
        made["client"] = docker.DockerClient(base_url=request.getfixturevalue("podman_url"), version="1.40")
        request.addfinalizer(made["client"].close)
    return made


@pytest.fixture(scope="module", params=BACKENDS)
def session(request: pytest.FixtureRequest) -> Iterator[Any]:
    policy = SecurityPolicy(
        severity_threshold=SecurityIssueSeverity.MEDIUM,
        patterns=[SecurityPattern(pattern=r"\beval\(", description="eval", severity=SecurityIssueSeverity.HIGH)],
        restricted_modules=[
            RestrictedModule(name="socket", description="network", severity=SecurityIssueSeverity.HIGH)
        ],
    )
    with SandboxSession(**options(request.param, request, "sandboxweb-python"), security_policy=policy) as session:
        yield session


def test_the_backends_are_known_to_llm_sandbox() -> None:
    register()
    assert get_backend("sandboxweb-docker").capabilities.container_images
    assert not get_backend("sandboxweb-bubblewrap").capabilities.daemon_required


def test_run_gives_output_and_exit_code(session: Any) -> None:
    result = session.run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)


def test_files_stay_between_runs(session: Any) -> None:
    assert session.run("open('note', 'w').write('kept')").exit_code == 0
    assert session.run("print(open('/sandbox/note').read())").stdout == "kept\n"


def test_output_is_told_while_it_comes(session: Any) -> None:
    told: list[str] = []
    result = session.run("for number in range(3): print(number, flush=True)", on_stdout=told.append)
    assert "".join(told) == result.stdout == "0\n1\n2\n"


def test_a_time_out_kills_the_code_and_the_session_lives_on(session: Any) -> None:
    began = time.monotonic()
    with pytest.raises(SandboxTimeoutError):
        session.run("while True: pass", timeout=1)
    assert time.monotonic() - began < 5
    assert session.run("print('alive')").stdout == "alive\n"


def test_more_than_eight_megabytes_of_output_do_no_harm(session: Any) -> None:
    result = session.run("print('x' * 20_000_000)")
    assert result.exit_code == 0
    assert "bytes left out" in result.stdout
    assert len(result.stdout) < 9_000_000


@pytest.mark.parametrize("place", ["/sandbox/deep/er", "/tmp"])
def test_files_are_copied_both_ways(session: Any, tmp_path: Path, place: str) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "up").write_bytes(content)
    session.copy_to_runtime(str(tmp_path / "up"), f"{place}/there")
    assert session.run(f"print(len(open('{place}/there', 'rb').read()))").stdout == f"{len(content)}\n"
    session.copy_from_runtime(f"{place}/there", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == content


def test_security_policies_judge_code(session: Any) -> None:
    assert session.is_safe("print(1)")[0]
    assert not session.is_safe("eval('1')")[0]
    safe, violations = session.is_safe("import socket")
    assert not safe
    assert violations[0].description == "network"


def test_commands_run_where_they_are_told_to(session: Any) -> None:
    assert session.execute_command("mkdir -p below && pwd", workdir="/sandbox").stdout == "/sandbox\n"
    assert session.execute_command("pwd", workdir="/sandbox/below").stdout == "/sandbox/below\n"
    assert session.execute_command("exit 4").exit_code == 4


@pytest.mark.parametrize("name", BACKENDS[1:])
def test_figures_are_extracted_as_artifacts(name: str, request: pytest.FixtureRequest) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()\nprint('drawn')"
    with ArtifactSandboxSession(**options(name, request, "sandboxweb-python-data")) as session:
        result = session.run(code)
    assert result.stdout.endswith("drawn\n")
    (plot,) = result.plots
    assert base64.b64decode(plot.content_base64).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_closed_session_is_gone_at_once_and_opens_again(name: str, request: pytest.FixtureRequest) -> None:
    session = SandboxSession(**options(name, request, "sandboxweb-python"))
    session.open()
    assert session.run("print(1)").stdout == "1\n"
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < 5
    with pytest.raises(NotOpenSessionError):
        session.run("print(1)")
    session.open()
    assert session.run("print(2)").stdout == "2\n"
    session.close()
