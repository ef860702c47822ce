"""What the environment says, and the secrets in files."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandboxweb.env import credential, secret_key


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_KEY", "PROXY_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_a_secret_key_is_made_once_and_kept_for_its_owner(tmp_path: Path) -> None:
    key = secret_key(tmp_path)
    assert len(key) >= 50
    assert secret_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secret_key"]


def test_many_who_start_at_once_share_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(lambda _: secret_key(tmp_path), range(64)))
    assert len(keys) == 1


def test_a_given_secret_key_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "given")
    assert secret_key(tmp_path) == "given"
    assert not list(tmp_path.iterdir())


def test_a_credential_of_the_first_start_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credential("PROXY_TOKEN", tmp_path, default="none") == "none"
    (tmp_path / "credentials.env").write_text("# made by the first start\n\nPROXY_TOKEN='to=ken'\nPROXY_URL=http://x\n")
    assert credential("PROXY_TOKEN", tmp_path) == "to=ken"
    monkeypatch.setenv("PROXY_TOKEN", "given")
    assert credential("PROXY_TOKEN", tmp_path) == "given"
