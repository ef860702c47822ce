"""The management commands."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from sessions_app.models import ApiKey, Execution, Session, SessionEvent
from sessions_app.services.executions import run_once
from sessions_app.services.sessions import create_session
from tests.sessions_app.fake_proxy import FakeProxy


def call(*arguments: str, **options: Any) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("root")


# --- create_api_key


def test_a_key_is_printed_alone_on_standard_output(owner: User) -> None:
    out, err = call("create_api_key", "ada", "--name", "laptop", "--expires-in-days", "2")
    assert re.fullmatch(r"sbx_\w+\.\w+\n", out)
    assert "only this once" in err
    key = ApiKey.objects.get_from_key(out.strip())
    assert (key.owner, key.name) == (owner, "laptop")
    with time_machine.travel("2100-01-01T00:00:00Z"), pytest.raises(ApiKey.DoesNotExist):
        ApiKey.objects.get_from_key(out.strip())


def test_an_unknown_user_is_made_only_when_asked_for(db: None) -> None:
    with pytest.raises(CommandError, match="--create-user"):
        call("create_api_key", "bob")
    out, _ = call("create_api_key", "bob", "--create-user")
    bob = ApiKey.objects.get_from_key(out.strip()).owner
    assert not bob.has_usable_password() and not bob.is_staff


@pytest.mark.parametrize("arguments", [("--name", ""), ("--name", "x" * 51), ("--expires-in-days", "0")])
def test_a_key_that_could_not_be_kept_or_used_is_refused(owner: User, arguments: tuple[str, str]) -> None:
    with pytest.raises(CommandError):
        call("create_api_key", "ada", *arguments)
    assert not ApiKey.objects.exists()


# --- run_code


def test_a_file_is_run_and_its_output_printed(admin: User, proxy: FakeProxy, tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("print(1)")
    out, err = call("run_code", str(file), "--library", "numpy", "--library", "six", "--timeout", "5")
    assert (out, err) == ("ran print(1)\n", "")
    execution = Execution.objects.get()
    assert (execution.libraries, execution.timeout_s, execution.session.owner) == (["numpy", "six"], 5, admin)
    assert execution.session.status == "terminated"
    assert SessionEvent.objects.filter(actor="command").count() == SessionEvent.objects.count()


def test_code_comes_from_standard_input_too(admin: User, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"2")))
    assert call("run_code", "-")[0] == "ran 2\n"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"exit_code": 3}, 3),
        ({"exit_code": None, "signal": 11}, 139),
        ({"exit_code": None, "signal": 9, "reason": "timed_out"}, 124),
        ({"exit_code": None, "signal": 9, "reason": "out_of_memory"}, 137),
    ],
)
def test_the_exit_code_is_the_codes_own(
    admin: User, proxy: FakeProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], code: int
) -> None:
    from tests.sessions_app import fake_proxy

    end = fake_proxy.FakeExecution.end
    monkeypatch.setattr(fake_proxy.FakeExecution, "end", lambda self, **_: end(self, **values))
    (tmp_path / "x").write_text("1")
    with pytest.raises(SystemExit) as caught:
        call("run_code", str(tmp_path / "x"))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("content", "arguments", "words", "code"),
    [
        (None, (), "cannot be read: No such file", 64),
        (b"\xff", (), "not UTF-8", 64),
        (b"1", ("--lang", "klingon"), "lang: .*klingon", 64),
        (b"1", ("--user", "nobody"), "no user 'nobody'", 64),
        (b"1", ("--timeout", "-1"), "timeout: ", 64),
        (b"", (), "code: ", 64),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(
    admin: User,
    proxy: FakeProxy,
    tmp_path: Path,
    content: bytes | None,
    arguments: tuple[str, ...],
    words: str,
    code: int,
) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(CommandError, match=words) as caught:
        call("run_code", str(tmp_path / "x"), *arguments)
    assert caught.value.returncode == code


def test_without_the_proxy_the_command_says_so(admin: User, proxy: FakeProxy, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    proxy.away = True
    with pytest.raises(CommandError, match="away") as caught:
        call("run_code", str(tmp_path / "x"))
    assert caught.value.returncode == 75


def test_without_an_administrator_a_user_must_be_named(owner: User, proxy: FakeProxy, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    with pytest.raises(CommandError, match="--user"):
        call("run_code", str(tmp_path / "x"))
    assert call("run_code", str(tmp_path / "x"), "--user", "ada")[0] == "ran 1\n"


# --- prune_sessions


def test_only_sessions_that_ended_long_ago_are_pruned(owner: User, proxy: FakeProxy) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        run_once(owner=owner, code="1", actor="api")
        clock.shift(29 * 24 * 3600)
        run_once(owner=owner, code="2", actor="api")
        create_session(owner=owner, actor="api")
        clock.shift(24 * 3600 + 1)
        assert call("prune_sessions", "--older-than", "30d", "--dry-run")[0] == "1 sessions would be deleted.\n"
        assert Session.objects.count() == 3
        assert call("prune_sessions", "--older-than", "30d")[0] == "1 sessions were deleted.\n"
    assert Session.objects.count() == 2
    assert Execution.objects.get().code == "2"


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1y", ""])
def test_a_duration_must_be_one(db: None, text: str) -> None:
    with pytest.raises(CommandError, match="no duration"):
        call("prune_sessions", f"--older-than={text}")


# --- reap_sessions


def test_one_sweep_says_what_it_did(db: None, owner: User, proxy: FakeProxy) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        create_session(owner=owner, actor="api", idle_timeout=1)
        clock.shift(1)
        assert call("reap_sessions", "--once", "--workers", "1")[0] == "end_expired 1\n"
        assert call("reap_sessions", "--once", "--workers", "1")[0] == "nothing to do\n"


def test_one_sweep_with_a_failure_exits_with_1(db: None, proxy: FakeProxy) -> None:
    proxy.away = True
    with pytest.raises(SystemExit) as caught:
        call("reap_sessions", "--once", "--workers", "1")
    assert caught.value.code == 1


@pytest.mark.parametrize(
    "argument",
    [
        "--interval=0",
        "--interval=-1",
        "--interval=nan",
        "--interval=x",
        "--max-seconds=0",
        "--workers=0",
        "--workers=x",
    ],
)
def test_a_reaper_is_not_started_with_nonsense(db: None, argument: str) -> None:
    with pytest.raises(CommandError, match="is no number"):
        call("reap_sessions", "--once", argument)
