"""Answers no longer than their reader asked for, from real sandboxes."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

MARK = re.compile(r"\n\[… (\d+) bytes omitted[^\n]* …\]\n")
CODE = "print('HEAD')\nfor n in range({count}): print(n, 'x' * 90)\nprint('TAIL')"


def accounted_for(text: str) -> int:
    """Return how many bytes an output had before its middle was left out."""
    found = MARK.search(text)
    return len(MARK.sub("", text).encode()) + (int(found[1]) if found is not None else 0)


@pytest.mark.parametrize(("count", "limit"), [(100, 2000), (60_000, 2000), (200_000, 2000), (60_000, None)])
def test_the_answer_has_the_head_the_tail_and_the_count(
    api: httpx.Client, session_id: str, count: int, limit: int | None
) -> None:
    code = CODE.format(count=count)
    body: dict[str, Any] = {"code": code, "timeout": 30, "output_limit_bytes": limit}
    answer = api.post(f"/sessions/{session_id}/execute", json=body).json()
    written = len("HEAD\nTAIL\n") + sum(len(f"{n} ") + 91 for n in range(count))
    assert (answer["status"], answer["truncated"], answer["stderr"]) == ("succeeded", True, "")
    assert answer["stdout"].startswith("HEAD\n0 ") and answer["stdout"].endswith("\nTAIL\n")
    assert accounted_for(answer["stdout"]) == written
    assert len(MARK.sub("", answer["stdout"])) == (limit or 2 << 20)
    assert api.get(f"/executions/{answer['execution_id']}").json()["stdout"] == answer["stdout"]
    if limit is not None:
        whole = api.get(answer["artifacts"][0]["url"])
        assert whole.headers["Content-Type"].startswith("text/plain")
        assert accounted_for(whole.text) == written
        assert len(MARK.sub("", whole.text)) == min(written, 8 << 20)
        assert answer["artifacts"][0]["url"] in answer["stdout"]


def test_a_one_shot_takes_the_limit_too(api: httpx.Client) -> None:
    answer = api.post("/sandbox/execute", json={"code": "print('a' * 999)", "output_limit_bytes": 500}).json()
    assert accounted_for(answer["stdout"]) == 1000
    assert len(answer["stdout"]) < 600
