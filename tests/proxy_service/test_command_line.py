"""`python -m proxy_service`: wrong settings are named, and a backend that cannot work says what mends it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy_service.__main__ import main
from proxy_service.backends.base import Sandbox
from proxy_service.backends.fake import FakeBackend
from proxy_service.errors import BackendUnavailable


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says only where things are and who may call."""
    for name in os.environ:
        if name.startswith(("PROXY_", "SANDBOX_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROXY_TOKEN", "token-of-the-tests")
    monkeypatch.setenv("SANDBOX_BACKEND", "fake")
    # The log of the other tests stays as it is.
    monkeypatch.setattr("proxy_service.__main__.configure", lambda level: None)


@pytest.mark.parametrize("token", [None, "", "short"])
def test_it_refuses_to_start_without_a_good_token(
    token: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PROXY_TOKEN")
    if token is not None:
        monkeypatch.setenv("PROXY_TOKEN", token)
    with pytest.raises(SystemExit) as caught:
        main(["serve"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "PROXY_TOKEN" in said
    assert "short" not in said.replace("at least", "")


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PROXY_PORT", "many")
    with pytest.raises(SystemExit):
        main([])
    assert "PROXY_PORT" in capsys.readouterr().err


def test_check_says_what_can_run_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "python" in capsys.readouterr().out


def test_check_takes_no_sandbox_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find_again(_: FakeBackend) -> AsyncIterator[Sandbox]:
        pytest.fail("a proxy that serves may hold them")
        yield

    monkeypatch.setattr(FakeBackend, "find_again", find_again)
    assert main(["check"]) == 0


def test_check_says_what_mends_a_backend_that_is_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def away(_: FakeBackend) -> None:
        raise BackendUnavailable("The engine is away.", mend="Start the engine.")

    monkeypatch.setattr(FakeBackend, "start", away)
    assert main(["check"]) == 1
    said = capsys.readouterr().err
    assert "The engine is away." in said
    assert "Start the engine." in said


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dance"])
    assert "dance" in capsys.readouterr().err
