"""Code is shut in: what it must not reach it does not reach, and what it breaks is its own execution alone."""

from __future__ import annotations

import hashlib
import time

import pytest

from proxy_service.backends.base import Backend, Sandbox
from tests.proxy_service.backends.conftest import (
    BUBBLEWRAP,
    DOCKER,
    MIB,
    PODMAN,
    fresh_name,
    run,
    with_limits,
)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("backend", [BUBBLEWRAP, DOCKER, PODMAN], indirect=True, scope="module"),
]

PRELUDE = "import ctypes, os, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"


async def answer(sandbox: Sandbox, code: str) -> str:
    """Return what code prints; it must not fail."""
    result = await run(sandbox, code)
    assert (result.exit["exit_code"], result.stderr) == (0, "")
    return result.stdout.strip()


async def test_the_only_network_interface_is_lo(shared: Sandbox) -> None:
    assert await answer(shared, "import socket; print(socket.if_nameindex())") == "[(1, 'lo')]"


async def test_nothing_outside_can_be_reached(shared: Sandbox) -> None:
    code = "import socket\nfor address in ('192.0.2.1', '10.0.0.1'):\n"
    code += "    print(socket.socket().connect_ex((address, 80)) != 0)"
    assert await answer(shared, code) == "True\nTrue"


async def test_code_has_no_capability_and_can_get_none(shared: Sandbox) -> None:
    status = await answer(shared, "print(open('/proc/self/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {name: int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapAmb": 0,
    }
    assert fields["NoNewPrivs"] == "1"
    assert fields["Uid"].split() == ["1000"] * 4
    assert fields["Gid"].split() == ["1000"] * 4


async def test_code_cannot_become_another_user(shared: Sandbox) -> None:
    code = PRELUDE + "print(libc.setuid(0), libc.setgid(0), libc.setgroups(0, None))"
    assert await answer(shared, code) == "-1 -1 -1"


async def test_a_setuid_program_gives_nothing(shared: Sandbox) -> None:
    code = (
        "import os, shutil, subprocess\n"
        "shutil.copy(shutil.which('id'), '/tmp/id'); os.chmod('/tmp/id', 0o6755)\n"
        "print(subprocess.run(['/tmp/id', '-u'], capture_output=True, text=True).stdout)"
    )
    assert await answer(shared, code) == "1000"


async def test_no_signal_reaches_the_agent(shared: Sandbox) -> None:
    code = "import os\nfor number in range(65):\n    try: os.kill(1, number)\n    except OSError: pass\nprint('done')"
    assert await answer(shared, code) == "done"
    assert await answer(shared, "print(1 + 1)") == "2"
    assert not shared.broken.is_set()


async def test_killing_everything_kills_only_the_code(shared: Sandbox) -> None:
    result = await run(shared, "import os, signal; os.kill(-1, signal.SIGKILL)")
    assert result.events[-1].type == "exit"
    assert await answer(shared, "print(1 + 1)") == "2"


@pytest.mark.parametrize("name", ["mem", "environ", "maps", "cwd", "root", "exe", "auxv", "syscall", "stack"])
async def test_the_agents_insides_are_closed(shared: Sandbox, name: str) -> None:
    code = (
        "import os\n"
        f"path = '/proc/1/{name}'\n"
        "try:\n"
        "    data = os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(64)\n"
        "    print('open', data)\n"
        "except OSError as error: print(type(error).__name__)"
    )
    # Some kernels let anyone open `maps` and its like, and give nothing.
    assert await answer(shared, code) in ("PermissionError", "open b''", "FileNotFoundError")


async def test_no_descriptor_of_the_agent_can_be_opened(shared: Sandbox) -> None:
    code = (
        "import os\n"
        "for number in range(20):\n"
        "    def reading(path): return os.open(path, os.O_RDONLY)\n"
        "    def writing(path): return os.open(path, os.O_WRONLY)\n"
        "    for open_it in (os.readlink, reading, writing):\n"
        "        try: print(open_it(f'/proc/1/fd/{number}'))\n"
        "        except OSError: pass"
    )
    assert await answer(shared, code) == ""


async def test_the_agent_cannot_be_traced_or_read(shared: Sandbox) -> None:
    code = PRELUDE + (
        "class Vector(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]\n"
        "buffer = ctypes.create_string_buffer(64)\n"
        "local = Vector(ctypes.addressof(buffer), 64)\n"
        "print(libc.ptrace(16, 1, 0, 0), libc.ptrace(0x4206, 1, 0, 0))\n"
        "print(libc.process_vm_readv(1, ctypes.byref(local), 1, ctypes.byref(local), 1, 0))\n"
        "print(libc.syscall(438, libc.syscall(434, 1, 0), 0, 0))"
    )
    assert await answer(shared, code) == "-1 -1\n-1\n-1"


async def test_the_agents_secret_is_nowhere_in_the_codes_reach(shared: Sandbox, backend: Backend) -> None:
    secret: bytes = backend._settings.agent_secret(shared.name)  # type: ignore[attr-defined]
    forms = [secret, secret.hex().encode()]
    wanted = [(len(form), hashlib.sha256(form).hexdigest(), form[0] ^ 255) for form in forms]
    code = (
        "import hashlib, os, re\n"
        f"wanted = {wanted!r}\n"
        "regions = [b'\\n'.join(open(f'/proc/self/{name}', 'rb').read() for name in ('environ', 'cmdline'))]\n"
        "memory = os.open('/proc/self/mem', os.O_RDONLY)\n"
        "for line in open('/proc/self/maps'):\n"
        "    start, end = (int(part, 16) for part in line.split()[0].split('-'))\n"
        "    if ' rw' in line and end - start < 64 << 20:\n"
        "        try: regions.append(os.pread(memory, end - start, start))\n"
        "        except OSError: pass\n"
        "found = 0\n"
        "for region in regions:\n"
        "    for size, digest, first in wanted:\n"
        "        byte, at = bytes([first ^ 255]), -1\n"
        "        while (at := region.find(byte, at + 1)) >= 0:\n"
        "            found += hashlib.sha256(region[at:at + size]).hexdigest() == digest\n"
        "print(len(regions) > 3, found)"
    )
    assert (await run(shared, code, timeout_s=60)).stdout.strip() == "True 0"


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr", "/usr/bin", "/opt/sandboxweb", "/proc/sys/kernel", "/sys", "/dev"]
)
async def test_nothing_outside_the_workspace_can_be_written(shared: Sandbox, path: str) -> None:
    code = f"try: open('{path}/planted', 'w'); print('written')\nexcept OSError: print('refused')"
    assert await answer(shared, code) == "refused"


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/etc/passwd"]
)
async def test_the_machines_settings_cannot_be_opened_for_writing(shared: Sandbox, path: str) -> None:
    code = f"try: open('{path}', 'r+'); print('open')\nexcept OSError: print('refused')"
    assert await answer(shared, code) == "refused"


async def test_the_workspace_and_tmp_can_be_written_and_run_from(shared: Sandbox) -> None:
    code = (
        "import os, subprocess\n"
        "for place in ('/sandbox', '/tmp'):\n"
        "    path = place + '/program'\n"
        "    open(path, 'w').write('#!/bin/sh\\necho ran'); os.chmod(path, 0o755)\n"
        "    print(subprocess.run([path], capture_output=True, text=True).stdout.strip())"
    )
    assert await answer(shared, code) == "ran\nran"


async def test_code_can_make_no_mount_and_no_namespace(shared: Sandbox) -> None:
    code = PRELUDE + (
        "print(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), libc.unshare(0x10000000), libc.unshare(0x20000))"
    )
    assert await answer(shared, code) == "-1 -1 -1"


async def test_nothing_of_the_proxy_is_seen(shared: Sandbox) -> None:
    code = (
        "import os\n"
        "print([name for name in os.environ if 'TOKEN' in name or name.startswith('SBX')])\n"
        f"print([path for path in ({__file__!r}, '/etc/shadow', '/var/run/docker.sock') if os.access(path, os.R_OK)])\n"
        "print(min(int(name) for name in os.listdir('/proc') if name.isdigit()))"
    )
    assert await answer(shared, code) == "[]\n[]\n1"


async def test_a_time_out_ends_an_endless_loop_and_the_next_execution_works(shared: Sandbox) -> None:
    result = await run(shared, "while True: pass", timeout_s=1.0)
    assert result.reason == "timed_out"
    assert 900 < result.exit["duration_ms"] < 5000
    began = time.monotonic()
    assert await answer(shared, "print(1 + 1)") == "2"
    assert time.monotonic() - began < 2
    assert (await shared.stats())["processes"] == 0


async def test_a_fork_bomb_stops_and_nothing_of_it_is_left(shared: Sandbox) -> None:
    code = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert (await run(shared, code, timeout_s=1.5)).reason == "timed_out"
    assert await answer(shared, "print(1 + 1)") == "2"
    assert (await shared.stats())["processes"] == 0


async def test_orphans_in_sessions_of_their_own_are_swept(shared: Sandbox) -> None:
    code = (
        "import os, time\n"
        "for _ in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0: time.sleep(1000)\n"
        "        os._exit(0)\n"
        "time.sleep(1000)"
    )
    assert (await run(shared, code, timeout_s=0.7)).reason == "timed_out"
    assert (await shared.stats())["processes"] == 0


async def test_too_much_memory_kills_the_code_alone(shared: Sandbox) -> None:
    result = await run(shared, "hoard = []\nwhile True: hoard.append(bytearray(4 << 20))")
    assert result.reason == "out_of_memory"
    assert result.exit["signal"] == 9
    assert await answer(shared, "print(1 + 1)") == "2"
    assert not shared.broken.is_set()


async def test_processes_are_bounded(shared: Sandbox) -> None:
    code = (
        "import os, time\n"
        "children = 0\n"
        "try:\n"
        "    while children < 500:\n"
        "        if os.fork() == 0: time.sleep(1000)\n"
        "        children += 1\n"
        "except OSError: pass\n"
        "os.write(1, str(children).encode())\n"
        "time.sleep(1000)"
    )
    result = await run(shared, code, timeout_s=4.0)
    assert 20 <= int(result.stdout) <= 60


async def test_filling_the_disk_stops_and_the_sandbox_lives_on(backend: Backend) -> None:
    sandbox = await backend.create(with_limits(disk_bytes=24 * MIB), fresh_name())
    try:
        code = (
            "import itertools\n"
            "for number in itertools.count():\n"
            "    with open(f'filler-{number}', 'wb') as file:\n"
            "        for _ in range(8): file.write(bytes(1 << 20))"
        )
        result = await run(sandbox, code)
        assert result.exit["exit_code"] != 0
        assert "No space left" in result.stderr or "disk is full" in result.exit["message"]
        clean = "import glob, os\nfor name in glob.glob('filler-*'): os.unlink(name)\nprint('clean')"
        assert await answer(sandbox, clean) == "clean"
    finally:
        await sandbox.destroy()


async def test_fifty_megabytes_of_output_are_cut_in_the_middle(shared: Sandbox) -> None:
    code = "import sys\nfor number in range(50):\n    sys.stdout.write(f'{number:02d}' * (1 << 19))\nprint('the end')"
    result = await run(shared, code, timeout_s=60, output_limit_bytes=MIB)
    cut = next(event for event in result.events if event.type == "truncated")
    kept = result.output("stdout")
    total = 50 * MIB + len("the end\n")
    assert result.exit["stdout_bytes"] == total
    assert len(kept) == MIB
    assert cut.data["omitted_bytes"] == total - MIB
    assert kept.startswith(b"0000")
    assert kept.endswith(b"4949the end\n")
