from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from deploy.supervisor import commands, settings
from deploy.supervisor.commands import StartError
from tests.postgres import free_port


def test_a_database_that_is_away_is_named_at_once_and_its_password_is_not() -> None:
    port = free_port()
    with pytest.raises(StartError, match=rf"127\.0\.0\.1:{port}, named by DATABASE_URL") as caught:
        commands.check_database(f"postgres://user:secret@127.0.0.1:{port}/name")
    assert "secret" not in str(caught.value)


def test_a_database_that_listens_or_is_a_file_passes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        commands.check_database(f"postgresql://user@127.0.0.1:{server.getsockname()[1]}/name")
    commands.check_database("sqlite:///somewhere.sqlite3")
    commands.check_database("")


def test_the_end_of_an_output_has_no_frames_of_tracebacks() -> None:
    text = 'first\nTraceback (most recent call last):\n  File "x.py", line 1, in <module>\n    boom()\nOSError: why\n'
    assert commands.last_lines(text) == "first\nOSError: why"


async def test_a_command_gives_its_exit_code_and_both_streams(tmp_path: Path) -> None:
    program = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(4)"
    here = settings.load({"DATA_DIR": str(tmp_path)}, tmp_path)
    assert await commands.run([sys.executable, "-c", program], os.environ, here) == (4, "out\nerr")
