"""The README's commands, taken from the file and run as printed."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.supervisor import credentials
from deploy.supervisor.credentials import Credentials
from deploy.supervisor.settings import load
from tests.integration.servers import ADMIN, PASSWORD, ROOT, TOKEN, Servers
from tests.waiting import wait_until

ANYTHING = "…"
BLOCK = re.compile(r"^```(bash|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "@@ end of a block @@"


def blocks_of(heading: str) -> list[tuple[str, str]]:
    """Return (language, text) of the code blocks under a heading of the README."""
    section = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{heading}\n")]
    return BLOCK.findall(text)


def agrees(shown: Any, answered: Any) -> bool:
    """Return whether an answer is what the README shows: the same keys and values, `…` standing for any."""
    if shown == ANYTHING:
        return answered is not None
    if isinstance(shown, dict):
        return isinstance(answered, dict) and all(
            key in answered and agrees(value, answered[key]) for key, value in shown.items()
        )
    if isinstance(shown, list):
        return isinstance(answered, list) and bool(answered) and all(agrees(shown[0], item) for item in answered)
    return bool(shown == answered)


@pytest.mark.registry
@pytest.mark.timeout(240)
def test_every_curl_of_the_readme_answers_as_printed(servers: Servers, tmp_path: Path) -> None:
    here = load({"DATA_DIR": str(tmp_path / "var")}, tmp_path)
    here = replace(here, app_port=servers.app_port, proxy_port=servers.proxy_port)
    here.data_dir.mkdir()
    # Whoever follows the README has few sessions: not all that other tests of these servers made.
    newcomer = servers.make_user(f"newcomer-{uuid.uuid4().hex[:8]}")
    credentials.save(Credentials(ADMIN, PASSWORD, newcomer, TOKEN), here)

    blocks = blocks_of("Use it")
    commands = [text for language, text in blocks if language == "bash"]
    script = f"\necho; echo '{END}'\n".join(["set -euo pipefail", *commands])
    ran = subprocess.run(["/bin/bash"], input=script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # The first part is the shell's options, the second the credentials; both print nothing.
    outputs = ran.stdout.split(f"{END}\n")[2:]
    shown = [json.loads(text) for language, text in blocks if language == "json"]
    assert len(outputs) == len(shown) == 5
    for expected, output in zip(shown, outputs, strict=True):
        answered = json.loads(output)
        assert agrees(expected, answered), f"the README shows {expected}, the server answered {answered}"
    with servers.proxy_client() as proxy:
        wait_until(lambda: proxy.get("/sessions").json()["sessions"] == [], what="no sandbox to be left")


def test_every_file_that_the_documentation_links_to_is_there() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
