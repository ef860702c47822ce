"""Clients as they should be: each request that makes something bears an Idempotency-Key and is retried with it."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx

from tests.chaos.installation import TEMPLATE
from tests.chaos.ledger import Asked, Ledger, Request
from tests.chaos.programs import Program

# A stopped server takes connections and says nothing: a client gives up on a request and asks again.
REQUEST_TIMEOUT_S = 12.0
# How long an answer is asked for; what counts is that all have theirs soon after the last blow.
PATIENCE_S = 300.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.5
IN_PROGRESS = ("idempotency_in_progress", "session_not_active", "queue_full")
LIVE = ("queued", "running")
# Of how many clients one makes a last session once nothing is struck any more.
LAST_ONE_OF = 4


class NoAnswer(Exception):
    """Nothing that could be called an answer came in time."""


class Client(threading.Thread):
    """Make sessions and use them until told to stop; then finish what is under way."""

    def __init__(
        self, number: int, *, url: str, key: str, seed: int, ledger: Ledger, witness_port: int, stop: threading.Event
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number = number
        self.dice = random.Random(f"client {number} {seed}")
        self.ledger = ledger
        self.witness_port = witness_port
        self.should_stop = stop
        self._programs = 0
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(REQUEST_TIMEOUT_S, connect=3),
            trust_env=False,
        )

    def run(self) -> None:
        """Live."""
        with self._http:
            while not self.should_stop.is_set():
                self._guarded(self._one_round)
            if self.number % LAST_ONE_OF == 0:
                self._guarded(self._last_round)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except NoAnswer as error:
            self.ledger.note_unanswered(f"client {self.number}: {error}")
        except Exception as error:
            self.ledger.note_surprise(f"client {self.number}: {error!r}")

    def _last_round(self) -> None:
        """Use the installation once more after the last blow, and leave a session that lives."""
        if session_id := self._create():
            self._execute(session_id)

    def _one_round(self) -> None:
        if self.dice.random() < 0.2:
            self._one_shot()
            return
        session_id = self._create()
        if session_id is None:
            return
        for _ in range(self.dice.randint(1, 8)):
            if self.should_stop.is_set():
                # Left alive: what lives at the end must have its sandbox.
                return
            deed = self.dice.choices(
                [self._execute, self._start_and_ask, self._cancel, self._renew, self._patch], weights=[8, 3, 2, 2, 1]
            )[0]
            if not deed(session_id):
                return
            time.sleep(self.dice.uniform(0, 0.3))
        if self.dice.random() < 0.8 and not self.should_stop.is_set():
            self._end(session_id)

    # --- what a client does; each returns whether the session is still there for more

    def _create(self) -> str | None:
        # Some are made to be forgotten: their idle time ends them.
        idle_s = self.dice.choice([4, 600, 600, 600])
        body = {"template": TEMPLATE, "idle_timeout": idle_s, "metadata": {"client": str(self.number)}}
        answer = self._ask("POST", "/sessions", body, keyed=True)
        if answer.status_code != 201:
            # 410: it had ended when its answer was asked for again; 502: its sandbox died while it was made.
            if answer.status_code not in (410, 502):
                self._surprise("create", answer)
            return None
        session_id = str(answer.json()["session_id"])
        self.ledger.note_session(session_id)
        return session_id

    def _execute(self, session_id: str) -> bool:
        asked = self._program("execute")
        return self._settled(asked, self._run(asked, f"/sessions/{session_id}/execute", {}))

    def _one_shot(self) -> None:
        asked = self._program("one-shot")
        self._settled(asked, self._run(asked, "/sandbox/execute", {"template": TEMPLATE}))

    def _start_and_ask(self, session_id: str) -> bool:
        asked = self._program("background")
        answer = self._run(asked, f"/sessions/{session_id}/execute", {"wait": False})
        return answer.status_code != 202 or self._poll(asked, answer.json()["execution_id"])

    def _cancel(self, session_id: str) -> bool:
        mark = self._mark()
        asked = Asked(Program(mark, self.witness_port, lines=600, pause_s=0.05), "cancel", cancelled=True)
        answer = self._run(asked, f"/sessions/{session_id}/execute", {"wait": False})
        if answer.status_code != 202:
            return self._settled(asked, answer)
        execution_id = answer.json()["execution_id"]
        time.sleep(self.dice.uniform(0, 0.5))
        answer = self._ask("POST", f"/executions/{execution_id}/cancel", {})
        if answer.status_code != 200:
            self._surprise("cancel", answer)
            return False
        self.ledger.note_answer(asked, answer.json())
        return True

    def _renew(self, session_id: str) -> bool:
        return self._touch("renew", self._ask("POST", f"/sessions/{session_id}/renew", {}))

    def _patch(self, session_id: str) -> bool:
        body = {"metadata": {"client": str(self.number), "at": f"{self.ledger.now_s():.3f}"}}
        return self._touch("patch", self._ask("PATCH", f"/sessions/{session_id}", body))

    def _touch(self, what: str, answer: httpx.Response) -> bool:
        if answer.status_code not in (200, 410):
            self._surprise(what, answer)
        return answer.status_code == 200

    def _end(self, session_id: str) -> None:
        answer = self._ask("DELETE", f"/sessions/{session_id}")
        if answer.status_code != 200:
            self._surprise("delete", answer)
            return
        self.ledger.note_end(session_id)

    # --- how

    def _mark(self) -> str:
        self._programs += 1
        return f"client-{self.number}-program-{self._programs}"

    def _program(self, kind: str) -> Asked:
        mark, port = self._mark(), self.witness_port
        small = Program(mark, port, lines=self.dice.randint(1, 20))
        large = Program(mark, port, lines=self.dice.randint(50, 400), width=500)
        slow = Program(mark, port, lines=self.dice.randint(5, 30), pause_s=0.1)
        failing = Program(mark, port, exit_code=3)
        return Asked(self.dice.choices([small, large, slow, failing], weights=[6, 2, 4, 1])[0], kind)

    def _run(self, asked: Asked, path: str, extra: dict[str, Any]) -> httpx.Response:
        self.ledger.note_asked(asked)
        answer = self._ask("POST", path, {"code": asked.program.code, **extra}, keyed=True, asked=asked)
        if answer.status_code in (200, 202):
            self.ledger.note_answer(asked, answer.json())
        else:
            asked.refusal = f"{answer.status_code} {_code(answer)}"
        return answer

    def _settled(self, asked: Asked, answer: httpx.Response) -> bool:
        if answer.status_code not in (200, 410, 502):
            self._surprise(asked.kind, answer)
        return answer.status_code == 200

    def _poll(self, asked: Asked, execution_id: str) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._ask("GET", f"/executions/{execution_id}")
            if answer.status_code != 200:
                self._surprise("an acknowledged execution", answer)
                return False
            if answer.json()["status"] not in LIVE:
                self.ledger.note_answer(asked, answer.json())
                return True
            if time.monotonic() > deadline:
                raise NoAnswer(f"execution {execution_id} did not end")
            time.sleep(0.2)

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        keyed: bool = False,
        asked: Asked | None = None,
    ) -> httpx.Response:
        """Ask until there is an answer: after a broken connection, a time-out, and whatever says "try again"."""
        headers = {"Idempotency-Key": str(uuid.UUID(int=self.dice.getrandbits(128)))} if keyed else {}
        what = f"{method} {path.split('/')[1]}{'/' + path.split('/')[-1] if path.count('/') > 2 else ''}"
        first, pause_s, deadline = self.ledger.now_s(), FIRST_PAUSE_S, time.monotonic() + PATIENCE_S
        while True:
            began = self.ledger.now_s()
            answer: httpx.Response | None = None
            try:
                answer = self._http.request(method, path, json=body, headers=headers)
                outcome = str(answer.status_code)
            except httpx.TransportError as error:
                outcome = type(error).__name__
            if asked is not None:
                asked.attempts += 1
            final = answer is not None and not _again(answer)
            self.ledger.note(Request(began, self.ledger.now_s() - began, what, outcome, final))
            if answer is not None and answer.status_code == 500:
                self._surprise(what, answer)
            if final and answer is not None:
                self.ledger.note_wait(self.ledger.now_s() - first, f"{what} from {first:.1f} s on")
                return answer
            if time.monotonic() > deadline:
                raise NoAnswer(f"{what}: {outcome} {'' if answer is None else answer.text[:200]}")
            # Not all at the same moment, and no sooner than the server asked for.
            asked_s = float(answer.headers.get("Retry-After", 0)) if answer is not None else 0.0
            time.sleep(max(asked_s, pause_s * self.dice.uniform(0.5, 1)))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _surprise(self, what: str, answer: httpx.Response) -> None:
        self.ledger.note_surprise(f"{self.ledger.now_s():.1f} s, {what}: {answer.status_code} {answer.text[:300]}")


def _again(answer: httpx.Response) -> bool:
    """Tell whether an answer says that the same request should be sent again."""
    if answer.status_code in (500, 503, 429):
        return True
    return answer.status_code == 409 and _code(answer) in IN_PROGRESS


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["errors"][0]["code"])
    except (ValueError, LookupError, TypeError):
        return answer.text[:50]
