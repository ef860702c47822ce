"""The commands of docs/files.md, run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path

import httpx

from tests.integration.servers import ROOT, Servers

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def test_the_commands_of_the_page_work(servers: Servers, api: httpx.Client, session_id: str, tmp_path: Path) -> None:
    first, second = BLOCK.findall((ROOT / "docs/files.md").read_text())
    (tmp_path / "data.csv").write_text("a,b\n1,2\n" * 100)
    (tmp_path / "project").mkdir()
    (tmp_path / "project/main.py").write_text("print(1)")
    variables = "\n".join(line for line in first.splitlines() if not line.startswith("curl"))
    script = variables.replace("SESSION_ID", session_id) + "\n" + second.replace("curl ", "curl --fail-with-body ")
    environment = {**os.environ, "SANDBOXWEB_URL": servers.app_url, "SANDBOXWEB_API_KEY": servers.key}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "copy.csv").read_text() == (tmp_path / "data.csv").read_text()
    with zipfile.ZipFile(tmp_path / "out.zip") as packed:
        assert packed.namelist() == ["data.csv"]
    left = api.get(f"/sessions/{session_id}/files").json()
    assert [entry["name"] for entry in left["entries"]] == ["in", "project"]
    assert api.get(f"/sessions/{session_id}/files/project/main.py").text == "print(1)"


def test_code_in_a_context_tells_its_files_too(api: httpx.Client, session_id: str) -> None:
    body = {"code": "open('p.png', 'wb').write(b'x')", "context": "default"}
    result = api.post(f"/sessions/{session_id}/execute", json=body).json()
    assert result["status"] == "succeeded", result
    assert [item["path"] for item in result["files"]] == ["p.png"]
    assert [item["name"] for item in result["artifacts"]] == ["p.png"]
