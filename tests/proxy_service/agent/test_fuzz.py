"""Whatever comes in, the agent answers the next hello."""

from __future__ import annotations

import random

import pytest

from tests.proxy_service.agent.client import AgentProcess, frame

OPS = ["hello", "assign", "exec", "stdin", "cancel", "resume", "forget", "stats", "ping", "untar", "file_write",
       "file_read", "file_list", "file_stat", "file_mkdir", "file_move", "file_remove", "nonsense"]  # fmt: skip
KEYS = ["execution_id", "kind", "filename", "commands", "cwd", "env", "args", "timeout_s", "output_limit_bytes",
        "stdin",
        "python_path", "after", "eof",
        "path", "src", "dst", "mode", "offset", "length", "more", "recursive", "nonce",
        "session_id", "digest", "limit", "parents"]  # fmt: skip


def value(chance: random.Random, depth: int = 0) -> object:
    """Return something that JSON can say."""
    simple: list[object] = [
        None, True, False, 0, 1, -1, 2**70, 1.5, -0.0, 1e300, "", "a", "python", "commands", "x.py", "none", "data",
        "é\0\ud800", "../x", "/", "a" * 300, "00" * 16,
    ]  # fmt: skip
    if depth < 3 and chance.random() < 0.2:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if depth < 3 and chance.random() < 0.2:
        return {str(chance.choice(simple)): value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(simple)


def request(chance: random.Random) -> bytes:
    """Return a frame that may or may not make sense."""
    header = {key: value(chance) for key in chance.sample(KEYS, chance.randrange(8))}
    header["op"] = chance.choice(OPS) if chance.random() < 0.95 else value(chance)
    header["id"] = chance.randrange(1000) if chance.random() < 0.9 else value(chance)
    if header["op"] in ("exec", "stdin", "cancel", "resume", "forget") and chance.random() < 0.8:
        header["execution_id"] = chance.choice("abc")
        header.setdefault("kind", "python")
        header["timeout_s"] = 0.2
    return frame(header, chance.choice([b"", b"print(1)", b"import time; time.sleep(0.1)", chance.randbytes(50)]))


def spoil(chance: random.Random, data: bytes) -> bytes:
    """Damage some bytes as a broken or hostile sender would."""
    kind = chance.randrange(5)
    if kind == 0:
        return data[: chance.randrange(len(data) + 1)]
    if kind == 1:
        return data[chance.randrange(len(data)) :]
    if kind == 2:
        at = chance.randrange(len(data))
        return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at + 1 :]
    if kind == 3:
        return chance.randbytes(chance.randrange(200))
    return data + b"\xf5S" + chance.randbytes(8)


@pytest.mark.parametrize("seed", range(12))
def test_the_agent_survives_what_makes_no_sense(seed: int, agent: AgentProcess) -> None:
    chance = random.Random(seed)
    for _ in range(8):
        for _ in range(chance.randrange(25)):
            data = request(chance)
            agent.write(spoil(chance, data) if chance.random() < 0.15 else data)
        hello = agent.attach()
        for execution in hello["executions"]:
            agent.ask("cancel", execution_id=execution["execution_id"])
            agent.ask("resume", execution_id=execution["execution_id"], after=0)
            assert agent.finish(execution["execution_id"]).exit["ev"] == "exit"
        for execution in hello["executions"]:
            agent.ask("forget", execution_id=execution["execution_id"])
    assert agent.run("print('alive')").text == "alive\n"


@pytest.mark.parametrize("seed", range(6))
def test_frames_may_come_in_any_pieces(seed: int, agent: AgentProcess) -> None:
    chance = random.Random(seed)
    data = b"".join(frame({"op": "ping", "id": 5000 + number}, chance.randbytes(number)) for number in range(60))
    while data:
        size = chance.randrange(1, 300)
        agent.write(data[:size])
        data = data[size:]
    for number in range(60):
        assert agent.answer(5000 + number)[0]["ok"]
