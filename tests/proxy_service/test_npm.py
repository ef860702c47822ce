"""npm on the proxy's side: what it says in plain words, what it is never let do, and what it is asked to keep."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from proxy_service import npm
from proxy_service.errors import LibraryError

ADDRESS = re.compile(r"https?://|(^|\s)/\w+/")


def stand_in(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a script in npm's place."""
    program = directory / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(npm, "find_npm", lambda: str(program))


@pytest.mark.parametrize(
    ("requirement", "parts"),
    [
        ("lodash", ("lodash", "latest")),
        ("lodash@4.17.21", ("lodash", "4.17.21")),
        ("@types/node", ("@types/node", "latest")),
        ("@types/node@20", ("@types/node", "20")),
    ],
)
def test_a_requirement_is_a_name_and_a_version(requirement: str, parts: tuple[str, str]) -> None:
    assert npm.parts_of(requirement) == parts


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("npm error 404  The requested resource 'nosuch@*' could not be found", "no package named nosuch"),
        ("npm error 404  '@me/nosuch@latest' is not in this registry.", "no package named @me/nosuch"),
        ("npm error notarget No matching version found for lodash@99.0.0.", "no version lodash@99.0.0"),
        ("npm error code ECONNREFUSED\nnpm error request to https://user:secret@r.example/x failed", "be reached"),
        ("npm error code ENOGIT", "not come from the package registry"),
        ("npm error something at https://user:secret@r.example/x and /var/secret/place", "installed together"),
    ],
)
def test_what_npm_says_is_told_without_addresses(said: str, words: str) -> None:
    text = npm.explain(said)
    assert words in text
    assert "secret" not in text
    assert not ADDRESS.search(text)


async def test_npm_gets_none_of_the_proxy_s_secrets_and_runs_no_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "env >env.txt; exit 1")
    monkeypatch.setenv("PROXY_TOKEN", "a-secret-of-the-proxy")
    monkeypatch.setenv("NPM_CONFIG_IGNORE_SCRIPTS", "false")
    with pytest.raises(LibraryError):
        await npm.resolve({"lodash": "latest"}, {}, "x86_64", tmp_path)
    met = (tmp_path / "env.txt").read_text()
    assert "a-secret" not in met
    assert [line for line in met.splitlines() if "ignore_scripts" in line.lower()] == ["npm_config_ignore_scripts=true"]


@pytest.mark.parametrize(
    "entry",
    [
        {"version": "1.0.0", "resolved": "git+ssh://git@host.example/x.git#0123", "integrity": "sha512-x"},
        {"version": "1.0.0", "resolved": "file:../x", "link": True},
        {"version": "1.0.0"},
    ],
)
async def test_what_is_not_the_registry_s_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, object]
) -> None:
    lock = {"packages": {"": {}, "node_modules/good": {"integrity": "sha512-y"}, "node_modules/elsewhere": entry}}
    (tmp_path / "answer.json").write_text(json.dumps(lock))
    stand_in(tmp_path, monkeypatch, "cp answer.json package-lock.json")
    with pytest.raises(LibraryError, match=r"^elsewhere does not come from the package registry"):
        await npm.resolve({"good": "latest"}, {}, "x86_64", tmp_path)


async def test_a_machine_without_npm_says_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm.shutil, "which", lambda *_, **__: None)
    with pytest.raises(LibraryError, match=r"no npm beside the proxy.*install"):
        await npm.resolve({"lodash": "latest"}, {}, "x86_64", tmp_path)


@pytest.mark.npm
@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ({"sandboxweb-there-is-no-such-package": "latest"}, "sandboxweb-there-is-no-such-package"),
        ({"lodash": "99.0.0"}, "lodash@99.0.0"),
    ],
)
async def test_what_the_registry_has_not_got_is_named(tmp_path: Path, requirements: dict[str, str], words: str) -> None:
    with pytest.raises(LibraryError) as caught:
        await npm.resolve(requirements, {}, "x86_64", tmp_path)
    assert words in caught.value.detail
    assert not ADDRESS.search(caught.value.detail)
