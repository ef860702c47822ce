"""What code printed before its end is kept, whoever ended it: a cancellation, its session's end, its sandbox's loss."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from sessions_app.models import Execution, Session
from sessions_app.reaper import Reaper, reconcile
from sessions_app.services.executions import cancel_execution, start_execution, submit_execution
from sessions_app.services.sessions import terminate_session
from sessions_app.services.settlement import lose_session, settle_execution
from tests.sessions_app.fake_proxy import FakeProxy

SOMEBODY = {"actor": "reaper"}


def stored(execution: Execution) -> tuple[str, str]:
    found = Execution.objects.get(pk=execution.pk)
    return found.status, found.stdout


FINDERS: dict[str, Callable[[Execution], object]] = {
    "a read": lambda execution: settle_execution(execution, **SOMEBODY),
    "a cancellation": lambda execution: cancel_execution(execution=execution, **SOMEBODY),
    "an error": lambda execution: lose_session(execution.session, error="It broke.", **SOMEBODY),
    "a sweep": lambda execution: reconcile(Reaper(workers=1)),
}


@pytest.mark.parametrize("find", FINDERS.values(), ids=FINDERS.keys())
def test_a_lost_sandbox_leaves_the_output_so_far(
    running: Execution, proxy: FakeProxy, find: Callable[[Execution], object]
) -> None:
    proxy.execution(running).say("stdout", "so far\n")
    proxy.lose(running.session_id)
    find(running)
    assert stored(running) == ("lost", "so far\n")
    session = Session.objects.get()
    assert (session.status, session.termination_reason) == ("failed", "lost")


def test_every_execution_of_a_lost_session_keeps_its_own_end(running: Execution, proxy: FakeProxy) -> None:
    second = start_execution(submit_execution(session=running.session, code="2", actor="api"), actor="api")
    proxy.execution(running).say("stdout", "so far\n")
    proxy.lose(running.session_id)
    lose_session(running.session, error="It broke.", **SOMEBODY)
    assert stored(running) == ("lost", "so far\n")
    assert stored(second) == ("succeeded", "ran 2\n")


def test_a_session_that_ends_while_its_sandbox_is_lost_cancels_with_the_output_so_far(
    running: Execution, proxy: FakeProxy
) -> None:
    proxy.execution(running).say("stdout", "so far\n")
    proxy.lose(running.session_id)
    terminate_session(session=running.session, reason=Session.Reason.MAX_LIFETIME, **SOMEBODY)
    assert stored(running) == ("cancelled", "so far\n")
    assert Session.objects.get().termination_reason == "max_lifetime"


def test_a_sandbox_that_does_not_answer_a_cancellation_leaves_the_output_so_far(
    running: Execution, proxy: FakeProxy
) -> None:
    proxy.execution(running).say("stdout", "so far\n")
    proxy.failures["DELETE"] = httpx.Response(502, json={"error": "sandbox_broken", "detail": "It is silent."})
    cancel_execution(execution=running, **SOMEBODY)
    assert stored(running) == ("cancelled", "so far\n")


def test_what_a_look_has_seen_outlives_the_proxy_too(running: Execution, proxy: FakeProxy) -> None:
    proxy.execution(running).say("stdout", "so far\n")
    settle_execution(running, **SOMEBODY)
    assert stored(running) == ("running", "so far\n")
    proxy.sandboxes.clear()
    settle_execution(running, **SOMEBODY)
    assert stored(running) == ("lost", "so far\n")
