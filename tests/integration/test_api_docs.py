"""The examples of docs/api.md, in curl and in Python, run as printed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.integration import pages
from tests.integration.openapi import lies_of
from tests.integration.servers import ROOT, Servers

PAGE = ROOT / "docs" / "api.md"


@pytest.fixture
def env(servers: Servers) -> dict[str, str]:
    """What the page asks for: the address and a key, here of a user with nothing in it yet."""
    key = servers.make_user(f"reader-{os.urandom(4).hex()}")
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "SANDBOXWEB_URL": servers.app_url,
        "SANDBOXWEB_API_KEY": key,
    }


# Code that notes what a client of httpx was answered, in the page's own process.
NOTE = """
import json as _json
import httpx as _httpx
_send = _httpx.Client.send
def _noted(client, request, **options):
    answer = _send(client, request, **options)
    if answer.headers.get("Content-Type") == "application/json" and not options.get("stream"):
        note = [request.method, request.url.path, answer.status_code, answer.json()]
        with open("answers.jsonl", "a") as file:
            file.write(_json.dumps(note) + "\\n")
    return answer
_httpx.Client.send = _noted
"""


@pytest.mark.registry
@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", ["bash", "python"])
def test_every_example_prints_what_the_page_shows(
    servers: Servers, env: dict[str, str], tmp_path: Path, language: str
) -> None:
    ran = pages.run(
        pages.examples_of(PAGE), language, env=env, cwd=tmp_path, before=NOTE if language == "python" else ""
    )
    assert len(ran) > 20
    wrong = [f"line {example.line}: {why}" for example, printed in ran if (why := pages.difference(example, printed))]
    assert not wrong, "\n\n".join(wrong)
    if language == "python":
        notes = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
        assert len(notes) > 20
        with servers.client() as client:
            schema = client.get("/schema", params={"format": "json"}).json()
        lies = [f"{note[:3]}: {lie}" for note in notes if note[1] != "/schema" for lie in lies_of(schema, *note)]
        assert not lies, "\n\n".join(lies)


def test_every_address_of_the_api_is_on_the_page(servers: Servers) -> None:
    with servers.client() as client:
        schema = client.get("/schema", params={"format": "json"}).json()
    text = re.sub(r"\$\{?\w+\}?|\{[^}/]*\}", "X", PAGE.read_text())
    missing = [
        f"{method.upper()} {path}"
        for path, methods in schema["paths"].items()
        for method in methods
        if not re.search(rf"`{method.upper()} {re.escape(re.sub(r'{[^}]*}', 'X', path))}[`?]", text)
    ]
    assert missing == []


def test_a_difference_between_page_and_answer_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```bash\necho \'{"a": [1, 2], "b": 3}\'\n```\n```python\nprint(\'{"a": [1, 2]}\')\n```\n'
        '```json\n{"a": [1, "…"], "b": "…"}\n```\n```bash\necho hello\n```\n```text\nh…o\n```\n```bash\necho x\n```\n'
    )
    examples = pages.examples_of(page)
    here = {"PATH": os.environ["PATH"]}
    shell = [pages.difference(*one) for one in pages.run(examples, "bash", env=here, cwd=tmp_path)]
    python = [pages.difference(*one) for one in pages.run(examples, "python", env=here, cwd=tmp_path)]
    assert shell[:2] == ["", ""]
    assert "the page shows nothing" in shell[2]
    assert python == [".b is not in the answer {'a': [1, 2]}"]
    with pytest.raises(AssertionError, match="line 1 failed"):
        pages.run([pages.Example("bash", "false", 1, None)], "bash", env=here, cwd=tmp_path)
