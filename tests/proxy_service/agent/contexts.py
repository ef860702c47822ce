"""Code in a context, and what came of it."""

from __future__ import annotations

from typing import Any

from tests.proxy_service.agent.client import AgentProcess, Finished

Parts = dict[str, bytes]


def in_context(agent: AgentProcess, code: str, context: str = "default", **fields: Any) -> Finished:
    return agent.run(code, kind="context", context_id=context, **fields)


def parts(event: dict[str, Any]) -> Parts:
    """Cut an event's body into what its header names."""
    found, start = {}, 0
    for name, size in event["parts"]:
        found[name] = event["body"][start : start + size]
        start += size
    assert start == len(event["body"])
    return found


def results(done: Finished) -> list[Parts]:
    return [parts(event) for event in done.events if event["ev"] == "result"]


def value(done: Finished) -> str | None:
    """Return the text of the last expression's value."""
    mains = [parts(event) for event in done.events if event["ev"] == "result" and event["is_main_result"]]
    assert len(mains) <= 1
    return mains[0]["text"].decode() if mains else None


def error(done: Finished) -> tuple[str, str, str]:
    (found,) = [parts(event) for event in done.events if event["ev"] == "error"]
    return found["name"].decode(), found["value"].decode(), found["traceback"].decode()


def contexts(agent: AgentProcess) -> dict[str, dict[str, Any]]:
    return {item["context_id"]: item for item in agent.ask("context_list")["contexts"]}
