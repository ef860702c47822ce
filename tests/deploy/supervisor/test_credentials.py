from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from deploy.supervisor import credentials, settings


def test_credentials_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    here = settings.load({"DATA_DIR": str(tmp_path)}, tmp_path)
    first = credentials.load_or_make(here)
    assert first.api_key == ""
    assert min(len(first.admin_password), len(first.proxy_token)) >= 20
    file = credentials.save(credentials.with_api_key(first, "sbx_a.b"), here)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert credentials.load_or_make(here) == credentials.with_api_key(first, "sbx_a.b")


def test_a_saved_file_follows_changed_ports_and_a_shell_can_read_it(tmp_path: Path) -> None:
    here = settings.load({"DATA_DIR": str(tmp_path)}, tmp_path)
    made = credentials.with_api_key(credentials.load_or_make(here), "sbx_a.b")
    credentials.save(made, here)
    moved = settings.load({"DATA_DIR": str(tmp_path), "APP_PORT": "4000"}, tmp_path)
    file = credentials.save(credentials.load_or_make(moved), moved)
    shell = ["/bin/sh", "-c", f'. "{file}" && echo "$SANDBOXWEB_URL $SANDBOXWEB_API_KEY $PROXY_TOKEN"']
    read = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()
    assert read == ["http://127.0.0.1:4000", "sbx_a.b", made.proxy_token]


def test_a_token_of_the_environment_wins(tmp_path: Path) -> None:
    here = settings.load({"DATA_DIR": str(tmp_path)}, tmp_path)
    credentials.save(credentials.load_or_make(here), here)
    given = settings.load({"DATA_DIR": str(tmp_path), "PROXY_TOKEN": "given-by-hand"}, tmp_path)
    assert credentials.load_or_make(given).proxy_token == "given-by-hand"


def test_an_older_files_mode_does_not_stay(tmp_path: Path) -> None:
    here = settings.load({"DATA_DIR": str(tmp_path)}, tmp_path)
    path = tmp_path / credentials.FILE_NAME
    path.write_text("PROXY_TOKEN='kept'\n")
    os.chmod(path, 0o644)
    credentials.save(credentials.load_or_make(here), here)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.load_or_make(here).proxy_token == "kept"
