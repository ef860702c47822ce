"""Real programs that fail in real sandboxes, and the hint that each gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.integration.servers import Servers


@dataclass(frozen=True)
class Case:
    name: str
    code: str
    hint: str
    body: dict[str, Any] = field(default_factory=dict)
    statuses: tuple[str, ...] = ("failed",)


CASES = [
    Case("a module of another name", "import cv2", '"libraries": ["opencv-python-headless"]'),
    Case("a name that cannot be resolved", "import urllib.request as u; u.urlopen('http://example.com')", "no network"),
    Case("an address outside", "import socket; socket.create_connection(('192.0.2.1', 80), 5)", "no network"),
    Case("a closed port inside", "import socket; socket.create_connection(('127.0.0.1', 9))", "Nothing listens"),
    Case(
        "pip as a program",
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'pip', 'install', '--retries=0', 'tabulate'], check=True)",
        "Packages cannot be installed from inside this sandbox",
    ),
    Case("input() without any", "input()", "Give its input in `stdin`"),
    Case("input() with too little", "input(); input()", "more lines than `stdin` has", {"stdin": "one\n"}),
    Case("a directory of the system", "open('/usr/here', 'w')", "Only /sandbox and /tmp can be written to"),
    Case("a file that is not there", "open('data.csv')", "There is no `data.csv` in the sandbox"),
    Case("a program that is not there", "import subprocess; subprocess.run(['ffprobe-x'])", "no program `ffprobe-x`"),
    Case("a crash", "import ctypes; ctypes.string_at(0)", "the signal SIGSEGV: native code"),
    Case("too much memory at once", "bytearray(1 << 45)", "the sandbox's limit is 128 MiB"),
    Case(
        "too much memory bit by bit",
        "kept = []\nwhile True: kept.append(bytearray(1 << 24))",
        "limit is 128 MiB",
        statuses=("failed", "out_of_memory"),
    ),
    Case(
        "too much on the disk",
        "with open('big', 'wb') as file:\n    while True: file.write(bytes(1 << 20))",
        "its files may take 24 MiB together",
    ),
    Case(
        "no time left",
        "import time\ndef wait():\n    time.sleep(100)\nwait()",
        "its time-out of 1 s. It was at line 3, in `wait`.",
        {"timeout": 1},
        ("timed_out",),
    ),
]


SMALL = """
from sessions_app.models import SandboxTemplate
values = {"lang": "python", "memory_bytes": 128 << 20, "disk_bytes": 24 << 20}
SandboxTemplate.objects.update_or_create(name="small", defaults=values)
"""


@pytest.fixture(scope="module")
def template(servers: Servers) -> str:
    """A template whose limits are soon reached."""
    servers.manage("shell", "-c", SMALL)
    return "small"


@pytest.fixture
def session_id(api: httpx.Client, template: str) -> str:
    """The id of a new session."""
    answer = api.post("/sessions", json={"template": template})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["session_id"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_failure_says_what_to_do(api: httpx.Client, session_id: str, case: Case) -> None:
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": case.code, **case.body}).json()
    assert answer["status"] in case.statuses, answer
    assert case.hint in answer["hint"], answer
    assert api.get(f"/executions/{answer['execution_id']}").json()["hint"] == answer["hint"]


def test_a_success_has_no_hint_whatever_it_printed(api: httpx.Client, session_id: str) -> None:
    code = "import sys; print(\"ModuleNotFoundError: No module named 'cv2'\", file=sys.stderr)"
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": code}).json()
    assert (answer["status"], answer["hint"]) == ("succeeded", None)


OTHERS = {
    "bash": ("no-such-program --help", "There is no program `no-such-program`"),
    "javascript": ("require('lodash/fp')", '"libraries": ["lodash"]'),
    "cpp": ("#include <boost/any.hpp>\nint main() {}", "There is no `boost/any.hpp`"),
    "java": ("import org.json.X;\nclass A { public static void main(String[] a) {} }", "There is no `org.json`"),
    "ruby": ("require 'nokogiri'", "There is no `nokogiri`"),
    "r": ("library(dplyr)", "There is no `dplyr`"),
    "go": ('package main\nimport "github.com/a/b"\nfunc main() { b.C() }', "There is no `github.com/a/b`"),
}


def test_other_languages_miss_what_they_call_otherwise(api: httpx.Client) -> None:
    here = {language["lang"] for language in api.get("/languages").json()["languages"]} & set(OTHERS)
    assert "bash" in here
    for lang in here:
        code, hint = OTHERS[lang]
        answer = api.post("/sandbox/execute", json={"lang": lang, "code": code, "timeout": 30}).json()
        assert answer["status"] == "failed", answer
        assert hint in (answer["hint"] or ""), answer
