"""Contexts of sandboxes with an agent, and what code shows in them."""

from __future__ import annotations

import base64
import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from proxy_service.agent_events import AgentBroken, AgentError, AgentEvent
from proxy_service.backends.base import ContextState, Sandbox
from proxy_service.errors import ProxyError, SandboxBroken, TooManyContexts, UnknownContext, UnsupportedSpec

MAX_RESULTS_BYTES = 41 * 1024 * 1024
"""What an agent may send for the results and the error of one execution."""
MAX_JSON_DEPTH = 64

TEXT_KEYS = frozenset({"text", "html", "markdown", "svg", "latex", "json", "javascript"})
BINARY_KEYS = frozenset({"png", "jpeg", "pdf"})
ERROR_KEYS = frozenset({"name", "value", "traceback"})
STATES = ("starting", "idle", "busy", "ended")


def told_data(event: AgentEvent) -> Mapping[str, Any]:
    """Return the data of an agent's event as the proxy tells it. Raises AgentBroken for what is not well-formed."""
    if event.type == "result":
        parts = _parts(event, TEXT_KEYS | BINARY_KEYS)
        result: dict[str, Any] = {key: _value(key, data) for key, data in parts.items()}
        return {**result, "is_main_result": event.fields.get("is_main_result") is True}
    if event.type == "error":
        texts = {key: data.decode("utf-8", "replace") for key, data in _parts(event, ERROR_KEYS).items()}
        traceback = texts.get("traceback", "").splitlines()
        return {"name": texts.get("name", ""), "value": texts.get("value", ""), "traceback": traceback}
    return event.fields


def _parts(event: AgentEvent, known: frozenset[str]) -> dict[str, bytes]:
    """Cut an event's body into its named pieces."""
    sizes = event.fields.get("parts")
    found: dict[str, bytes] = {}
    start = 0
    for item in sizes if isinstance(sizes, list) else ():
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and type(item[1]) is int):
            raise AgentBroken("the agent sent a result with a part that is none")
        name, size = item
        if name not in known:
            raise AgentBroken("the agent sent a result with an unknown part")
        if not 0 <= size <= len(event.body) - start or name in found:
            raise AgentBroken("the agent sent a result whose parts do not fit")
        found[name] = event.body[start : start + size]
        start += size
    if start != len(event.body):
        raise AgentBroken("the agent sent a result with more than its parts")
    return found


def _value(key: str, data: bytes) -> Any:
    if key in BINARY_KEYS:
        return base64.b64encode(data).decode()
    text = data.decode("utf-8", "replace")
    if key != "json":
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if _is_shallow(value) else text


def _is_shallow(value: Any) -> bool:
    """Tell whether JSON can be written again by everybody on its way."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return True
    return False


def context_state(answer: Any) -> ContextState:
    """Return what an agent says of a context. Raises AgentBroken for what is not well-formed."""
    try:
        context_id, state, created_at = answer["context_id"], answer["state"], answer["created_at"]
        executions, restarts = answer["executions"], answer["restarts"]
    except (KeyError, TypeError):
        raise AgentBroken("the agent described no context") from None
    if not (isinstance(context_id, str) and state in STATES):
        raise AgentBroken("the agent described a context badly")
    if type(created_at) not in (int, float) or not 0 <= created_at < 1e11:
        raise AgentBroken("the agent described a context made at no time")
    if type(executions) is not int or type(restarts) is not int:
        raise AgentBroken("the agent described a context badly")
    return ContextState(context_id, "python", state, float(created_at), executions, restarts)


def refusal(error: AgentError) -> ProxyError | None:
    """Return what an agent's refusal means, when it is about contexts."""
    match error.code:
        case "unknown_context":
            return UnknownContext(error.message)
        case "too_many_contexts":
            return TooManyContexts(error.message)
        case "no_contexts":
            return UnsupportedSpec("The sandbox of this session keeps no contexts.", field="context")
        case _:
            return None


class AgentContexts(Sandbox):
    """The contexts of a sandbox whose agent keeps them: whoever runs the proxy next finds them as they are."""

    @abstractmethod
    async def _ask(self, op: str, body: bytes = b"", **fields: Any) -> dict[str, Any]:
        """Ask the agent. Raises ProxyError."""

    async def create_context(self, context_id: str) -> tuple[ContextState, bool]:
        answer = await self._ask("context_create", context_id=context_id)
        return self._state(answer), answer.get("made") is True

    async def contexts(self) -> list[ContextState]:
        found = (await self._ask("context_list")).get("contexts")
        return [self._state({"context": item}) for item in found] if isinstance(found, list) else []

    async def restart_context(self, context_id: str) -> ContextState:
        return self._state(await self._ask("context_restart", context_id=context_id))

    async def interrupt_context(self, context_id: str) -> bool:
        return (await self._ask("context_interrupt", context_id=context_id)).get("interrupted") is True

    async def delete_context(self, context_id: str) -> None:
        await self._ask("context_delete", context_id=context_id)

    @staticmethod
    def _state(answer: Mapping[str, Any]) -> ContextState:
        try:
            return context_state(answer.get("context"))
        except AgentBroken as error:
            raise SandboxBroken(f"The sandbox broke: {error}.") from error
