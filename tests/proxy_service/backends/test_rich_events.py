"""Results and errors as an agent tells them: cut into their parts, or not believed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from proxy_service.agent_events import AgentBroken, AgentEvent
from proxy_service.backends.agent_contexts import context_state, told_data
from proxy_service.events import dump


def event(kind: str, parts: Any, body: bytes, **fields: Any) -> AgentEvent:
    return AgentEvent(2, kind, 1.0, {"parts": parts, **fields}, body)


def test_a_result_is_cut_into_its_parts() -> None:
    parts = [["text", 2], ["png", 3], ["json", 7], ["html", 2]]
    told = told_data(event("result", parts, b'ab\x89\x00\xff{"a":1}\xff!', is_main_result=True))
    assert told == {
        "text": "ab",
        "png": base64.b64encode(b"\x89\x00\xff").decode(),
        "json": {"a": 1},
        "html": "\ufffd!",
        "is_main_result": True,
    }


def test_an_error_has_its_lines() -> None:
    told = told_data(event("error", [["name", 1], ["value", 1], ["traceback", 3]], b"EVa\nb"))
    assert told == {"name": "E", "value": "V", "traceback": ["a", "b"]}


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([["text", 3]], b"ab"),
        ([["text", 1]], b"ab"),
        ([["text", -1]], b""),
        ([["text", True]], b"a"),
        ([["text", 1.0]], b"a"),
        ([["odd", 1]], b"a"),
        ([["text", 1], ["text", 1]], b"ab"),
        ([["text"]], b""),
        (["text"], b""),
        ([[["text"], 1]], b"a"),
        ("text", b"a"),
        (None, b"a"),
    ],
)
def test_parts_that_do_not_fit_are_a_broken_agent(parts: Any, body: bytes) -> None:
    for kind in ("result", "error"):
        with pytest.raises(AgentBroken):
            told_data(event(kind, parts, body))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 200 + "]" * 200,
        "{",
        "",
        "NaN,",
        "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    ],
)
def test_json_that_nobody_could_write_again_is_told_as_text(text: str) -> None:
    body = text.encode()
    told = told_data(event("result", [["json", len(body)]], body))
    assert told["json"] == text
    assert json.loads(dump(told))["json"] == text


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "1e999", '"\\ud800"'])
def test_json_with_what_json_has_not_can_still_be_written(text: str) -> None:
    json.loads(dump(told_data(event("result", [["json", len(text)]], text.encode()))))


def test_a_context_that_is_described_badly_is_a_broken_agent() -> None:
    good = {"context_id": "a", "state": "idle", "created_at": 1.0, "executions": 0, "restarts": 0}
    assert context_state(good).to_dict() == {**good, "lang": "python"}
    for wrong in (
        {"state": "odd"},
        {"context_id": 1},
        {"created_at": "x"},
        {"created_at": 1e300},
        {"executions": True},
        {"restarts": None},
    ):
        with pytest.raises(AgentBroken):
            context_state({**good, **wrong})
    for nothing in (None, [], "context", {}):
        with pytest.raises(AgentBroken):
            context_state(nothing)
