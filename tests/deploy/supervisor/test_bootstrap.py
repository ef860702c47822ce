from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

from deploy.supervisor import bootstrap
from deploy.supervisor.bootstrap import BootstrapError

ROOT = Path(__file__).resolve().parents[3]


def pinned(name: str) -> dict[str, str]:
    """Return the versions that a lock file pins."""
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\\n]+)", text, re.MULTILINE))


def test_the_development_lock_holds_all_of_the_other_in_the_same_versions() -> None:
    # Both are installed into one .venv: with different versions each start would undo the other.
    wanted, development = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert wanted
    assert {name: version for name, version in wanted.items() if development.get(name) != version} == {}


def test_an_entry_is_cut_out_of_a_lock_with_its_hashes() -> None:
    entry = bootstrap.lock_entry((ROOT / "requirements.lock").read_text(), "uv")
    assert entry.startswith("uv==")
    lines = entry.rstrip().splitlines()
    assert len(lines) > 1
    assert all(line.strip().startswith("--hash=sha256:") for line in lines[1:])


def test_a_lock_without_uv_is_refused() -> None:
    with pytest.raises(BootstrapError, match="does not name uv"):
        bootstrap.lock_entry("six==1.0 \\\n    --hash=sha256:00\n", "uv")


def test_a_lock_that_is_installed_already_is_not_installed_again(tmp_path: Path) -> None:
    environment = tmp_path / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    lock = tmp_path / "some.lock"
    lock.write_text("uv==1.0\n")
    version = bootstrap.interpreter_version(environment / "bin" / "python")
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    (environment / ".some.lock.sha256").write_text(f"{digest} {version}\n")
    assert bootstrap.ensure_installed(lock, environment) is False


def test_an_interpreter_that_does_not_work_has_no_version(tmp_path: Path) -> None:
    assert bootstrap.interpreter_version(tmp_path / "missing") == ""
    assert bootstrap.interpreter_version(Path("/bin/false")) == ""


def test_an_installer_that_fails_shows_its_words_and_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BootstrapError, match=r"no such host(.|\n)*registry(.|\n)*HTTPS_PROXY"):
        bootstrap.run([sys.executable, "-c", "import sys; sys.exit('no such host')"])
