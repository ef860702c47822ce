"""Contexts through the whole of an installation."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from tests.integration.servers import Servers
from tests.waiting import wait_until


def run(api: httpx.Client, session_id: str, code: str, **body: Any) -> dict[str, Any]:
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": code, "context": "default", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_state_results_and_exceptions(api: httpx.Client, session_id: str) -> None:
    assert run(api, session_id, "x = 1")["results"] == []
    shown = run(api, session_id, "print('hi')\nx + 1")
    assert (shown["stdout"], shown["results"]) == ("hi\n", [{"text": "2", "is_main_result": True}])
    other = api.post(f"/sessions/{session_id}/contexts").json()["context_id"]
    failed = run(api, session_id, "x", context=other)
    assert (failed["status"], failed["exit_code"]) == ("failed", 1)
    assert failed["error"]["name"] == "NameError"
    assert failed["error"]["traceback"][-1] == "NameError: name 'x' is not defined"
    states = {
        item["context_id"]: item["executions"]
        for item in api.get(f"/sessions/{session_id}/contexts").json()["contexts"]
    }
    assert states == {"default": 2, other: 1}


def test_files_written_in_a_context_are_told_and_there_for_all(api: httpx.Client, session_id: str) -> None:
    written = run(api, session_id, "open('made.txt', 'w').write('by a context')")
    assert [item["path"] for item in written["files"]] == ["made.txt"]
    plain = api.post(f"/sessions/{session_id}/execute", json={"code": "print(open('made.txt').read())"}).json()
    assert plain["stdout"] == "by a context\n"


def test_a_time_out_keeps_the_state_and_a_deaf_context_is_restarted(api: httpx.Client, session_id: str) -> None:
    run(api, session_id, "x = 1")
    late = run(api, session_id, "def work():\n    while True: pass\nwork()", timeout=1)
    assert (late["status"], late["error"]["name"], late["context_restarted"]) == (
        "timed_out",
        "KeyboardInterrupt",
        False,
    )
    assert "line 2" in late["hint"]
    assert run(api, session_id, "x")["results"][0]["text"] == "1"
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    killed = run(api, session_id, deaf, timeout=1)
    assert (killed["status"], killed["context_restarted"]) == ("timed_out", True)
    assert run(api, session_id, "'x' in globals()")["results"][0]["text"] == "False"


def test_an_interrupt_reaches_code_that_nobody_waits_for(api: httpx.Client, session_id: str) -> None:
    sent = {"code": "import time\ntime.sleep(100)", "context": "default", "wait": False}
    execution_id = api.post(f"/sessions/{session_id}/execute", json=sent).json()["execution_id"]
    address = f"/sessions/{session_id}/contexts/default/interrupt"

    def interrupted() -> bool:
        answer = api.post(address)
        return answer.status_code == 200 and answer.json()["interrupted"] is True

    wait_until(interrupted)
    wait_until(lambda: api.get(f"/executions/{execution_id}").json()["finished_at"] is not None)
    ended = api.get(f"/executions/{execution_id}").json()
    assert (ended["status"], ended["error"]["name"]) == ("failed", "KeyboardInterrupt")


def test_the_events_of_a_context_are_streamed(api: httpx.Client, session_id: str) -> None:
    body = {"code": "print(1)\ndisplay('shown')\n1 / 0", "context": "default"}
    with api.stream(
        "POST", f"/sessions/{session_id}/execute", json=body, headers={"Accept": "application/x-ndjson"}
    ) as answer:
        told = [json.loads(line) for line in answer.iter_lines() if line.strip()]
    kinds = [event["type"] for event in told if event["type"] in ("stdout", "result", "error")]
    assert list(dict.fromkeys(kinds)) == ["stdout", "result", "error"]
    assert next(event["data"] for event in told if event["type"] == "result") == {
        "text": "'shown'",
        "is_main_result": False,
    }


@pytest.mark.usefixtures("servers")
def test_a_session_of_another_language_keeps_no_contexts(api: httpx.Client, servers: Servers) -> None:
    langs = {item["lang"] for item in api.get("/languages").json()["languages"]} - {"python"}
    for lang in sorted(langs)[:1]:
        session_id = api.post("/sessions", json={"lang": lang}).json()["session_id"]
        answer = api.post(f"/sessions/{session_id}/contexts")
        assert answer.status_code == 422
        assert lang in answer.json()["errors"][0]["detail"]


@pytest.mark.registry
def test_libraries_that_were_brought_draw_and_show_in_a_context(api: httpx.Client, session_id: str) -> None:
    libraries = ["matplotlib", "pandas", "plotly"]
    code = (
        "import matplotlib.pyplot as plt, pandas as pd\n"
        "frame = pd.DataFrame({'a': [1, 4, 2]})\nframe.plot()\nplt.show()\nframe"
    )
    drawn = run(api, session_id, code, libraries=libraries, timeout=120)
    assert drawn["status"] == "succeeded", drawn
    figure, table = drawn["results"]
    assert base64.b64decode(figure["png"]).startswith(b"\x89PNG")
    assert "<table" in table["html"]
    code = "import plotly.graph_objects as go\nfig = go.Figure(go.Bar(x=['a'], y=[3]))\nfig.show()\nfig"
    for shown in run(api, session_id, code, timeout=120)["results"]:
        assert shown["json"]["data"][0]["type"] == "bar"
