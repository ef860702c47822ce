"""Libraries: resolved outside of the sandbox, kept, brought in, and refused in plain words."""

from __future__ import annotations

import asyncio
import os
import re
import tarfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy_service import uv
from proxy_service.backends.base import LIBRARIES_PATH
from proxy_service.backends.fake import FakeBackend, FakeSandbox
from proxy_service.errors import LibraryError
from proxy_service.library_cache import LibraryCache
from proxy_service.uv import Target
from tests.proxy_service.conftest import Proxy, eventually, make_settings, running

TARGET = Target("3.11", "x86_64-manylinux_2_28")
ADDRESS = re.compile(r"(https?|file)://|(^|\s)/\w+/|\x1b")


async def run(proxy: Proxy, session_id: str, *libraries: str) -> tuple[int, dict[str, Any]]:
    """Run code with libraries, and return the status and the answer."""
    body = {"code": "path", "libraries": list(libraries)}
    response = await proxy.http.post(f"/sessions/{session_id}/execute", json=body)
    return response.status_code, dict(response.json())


async def refusal(proxy: Proxy, *libraries: str) -> str:
    """Return why libraries are refused, having checked that it tells nothing of this machine."""
    session_id = await proxy.session()
    status, answer = await run(proxy, session_id, *libraries)
    assert (status, answer["field"]) == (422, "libraries"), answer
    assert not ADDRESS.search(answer["detail"]), answer["detail"]
    assert proxy.sandbox(session_id).started == 0
    return str(answer["detail"])


# --- with a package registry -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the libraries of this module's tests are kept."""
    return tmp_path_factory.mktemp("libraries")


@pytest.fixture
async def real(tmp_path: Path, shared: Path) -> AsyncIterator[Proxy]:
    """A proxy whose libraries come from the real registry."""
    settings = make_settings(tmp_path, library_cache_dir=shared)
    async with running(settings, FakeBackend(settings)) as found:
        yield found


@pytest.mark.registry
async def test_a_library_is_brought_in_and_found_by_the_code(real: Proxy) -> None:
    session_id = await real.session()
    status, answer = await run(real, session_id, "six")
    assert (status, answer["stdout"]) == (200, f"{LIBRARIES_PATH}\n")
    files = real.sandbox(session_id).files
    assert f"{LIBRARIES_PATH}/six.py" in files
    assert b"def " in files[f"{LIBRARIES_PATH}/six.py"]
    # It is there for what comes later too, though that names no library.
    assert (await real.execute(session_id, "path"))["stdout"] == f"{LIBRARIES_PATH}\n"


@pytest.mark.registry
async def test_a_second_session_gets_it_from_the_cache_in_a_moment(
    real: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await run(real, await real.session(), "six"))[0] == 200

    async def unused(*_: object) -> str:
        raise AssertionError("the registry was asked again")

    monkeypatch.setattr(uv, "_run", unused)
    session_id = await real.session()
    began = time.monotonic()
    assert (await run(real, session_id, "six"))[0] == 200
    assert time.monotonic() - began < 1
    assert f"{LIBRARIES_PATH}/six.py" in real.sandbox(session_id).files


@pytest.mark.registry
async def test_versions_are_respected_and_stay_as_they_are(real: Proxy) -> None:
    session_id = await real.session()
    assert (await run(real, session_id, "six==1.16.0"))[0] == 200
    assert any("six-1.16.0" in name for name in real.sandbox(session_id).files)
    status, answer = await run(real, session_id, "six==1.17.0")
    assert (status, answer["field"]) == (422, "libraries")
    assert "1.16.0" in answer["detail"]
    assert not ADDRESS.search(answer["detail"])


@pytest.mark.registry
async def test_an_unknown_library_is_named(real: Proxy) -> None:
    name = "sandboxweb-there-is-no-such-library"
    assert name in await refusal(real, name)


@pytest.mark.registry
async def test_a_version_that_does_not_exist_is_named(real: Proxy) -> None:
    assert "six" in await refusal(real, "six==99.0")


@pytest.mark.registry
async def test_what_has_no_wheel_is_not_built_here(real: Proxy) -> None:
    detail = await refusal(real, "docopt==0.6.2")
    assert "docopt" in detail
    assert "wheel" in detail


@pytest.mark.registry
async def test_what_does_not_fit_together_is_explained(real: Proxy) -> None:
    detail = await refusal(real, "python-dateutil==2.9.0.post0", "six==1.4.0")
    assert "six" in detail
    assert "dateutil" in detail


@pytest.mark.registry
async def test_what_is_larger_than_the_disk_is_refused(real: Proxy) -> None:
    session_id = await real.session(limits={"disk_bytes": 1024 * 1024})
    status, answer = await run(real, session_id, "pytz")
    assert (status, answer["field"]) == (422, "libraries")
    assert "MiB" in answer["detail"]


# --- without one -----------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for uv that says that it began, and then takes very long."""
    began = tmp_path / "began"
    script = tmp_path / "uv"
    script.write_text(f"#!/bin/sh\necho $$ > {began}\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr(uv, "find_uv_bin", lambda: str(script))
    yield began


def is_alive(pid: int) -> bool:
    """Tell whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_registry_that_does_not_answer_is_given_up(tmp_path: Path, slow_uv: Path) -> None:
    settings = make_settings(tmp_path, library_timeout_s=0.5)
    async with running(settings, FakeBackend(settings)) as proxy:
        assert "0.5 s" in await refusal(proxy, "six")
        await eventually(lambda: not is_alive(int(slow_uv.read_text())))


async def test_an_execution_is_cancelled_while_its_libraries_are_sought(proxy: Proxy, slow_uv: Path) -> None:
    session_id = await proxy.session()
    body = {"code": "print never", "libraries": ["six"], "execution_id": "0a7c3f36-6f1b-4c4e-8d0a-3f5b5f0c9e11"}
    task = asyncio.create_task(proxy.http.post(f"/sessions/{session_id}/execute", json=body))
    await eventually(lambda: slow_uv.exists() and slow_uv.read_text().strip())
    response = await proxy.http.delete(f"/sessions/{session_id}/executions/{body['execution_id']}")
    assert response.status_code == 200
    assert (await asyncio.wait_for(task, 5)).json()["status"] == "cancelled"
    await eventually(lambda: not is_alive(int(slow_uv.read_text())))
    assert proxy.sandbox(session_id).started == 0
    assert (await proxy.execute(session_id, "print next"))["stdout"] == "next\n"


async def test_a_session_that_ends_while_libraries_are_sought_leaves_nothing(proxy: Proxy, slow_uv: Path) -> None:
    session_id = await proxy.session()
    path = f"/sessions/{session_id}/execute"
    task = asyncio.create_task(proxy.http.post(path, json={"code": "print never", "libraries": ["six"]}))
    await eventually(lambda: slow_uv.exists() and slow_uv.read_text().strip())
    assert (await proxy.http.delete(f"/sessions/{session_id}")).status_code == 200
    assert (await asyncio.wait_for(task, 5)).json()["status"] == "cancelled"
    await eventually(lambda: not proxy.backend.sandboxes and not is_alive(int(slow_uv.read_text())))


async def test_libraries_on_their_way_arrive_whole_though_who_wanted_them_was_cancelled(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "six.tar"
    archive.write_bytes(b"")
    arrive, streams = asyncio.Event(), [0, 0]

    async def pins(*_: object) -> list[str]:
        return ["six==1.17.0"]

    async def archives(*_: object) -> list[Path]:
        return [archive]

    async def put_tar(*_: object) -> None:
        streams[0] += 1
        streams[1] = max(streams)
        await arrive.wait()
        streams[0] -= 1

    monkeypatch.setattr(LibraryCache, "resolve", pins)
    monkeypatch.setattr(LibraryCache, "archives", archives)
    monkeypatch.setattr(FakeSandbox, "put_tar", put_tar)
    session_id = await proxy.session()
    path = f"/sessions/{session_id}/execute"
    body = {"code": "path", "libraries": ["six"], "execution_id": "0a7c3f36-6f1b-4c4e-8d0a-3f5b5f0c9e11"}
    first = asyncio.create_task(proxy.http.post(path, json=body))
    await eventually(lambda: streams[0] == 1)
    await proxy.http.delete(f"/sessions/{session_id}/executions/{body['execution_id']}")
    assert (await first).json()["status"] == "cancelled"
    second = asyncio.create_task(run(proxy, session_id, "six"))
    await asyncio.sleep(0.05)
    assert streams == [1, 1]
    arrive.set()
    assert (await second)[1]["stdout"] == f"{LIBRARIES_PATH}\n"
    assert streams == [0, 1]


@pytest.mark.parametrize(
    ("age_s", "said", "asked", "works"),
    [
        (3600, "", 0, True),
        (48 * 3600, "echo six==9.0", 1, True),
        (48 * 3600, "echo 'error sending request' >&2; exit 1", 1, True),
        (48 * 3600, "echo 'six was not found in the package registry' >&2; exit 1", 1, False),
        (None, "echo 'error sending request' >&2; exit 1", 1, False),
    ],
)
async def test_while_the_registry_is_away_its_last_answer_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float | None, said: str, asked: int, works: bool
) -> None:
    script = tmp_path / "uv"
    monkeypatch.setattr(uv, "find_uv_bin", lambda: str(script))
    cache = LibraryCache(tmp_path / "cache", max_bytes=1024, timeout_s=10)
    if age_s is not None:
        script.write_text("#!/bin/sh\necho six==1.0\n")
        script.chmod(0o755)
        assert await cache.resolve(["six"], [], TARGET) == ["six==1.0"]
        (answer,) = (tmp_path / "cache" / "resolutions").iterdir()
        os.utime(answer, (time.time() - age_s,) * 2)
    script.write_text(f"#!/bin/sh\necho >>{tmp_path}/asked\n{said}\n")
    script.chmod(0o755)
    if works:
        pins = await cache.resolve(["six"], [], TARGET)
        assert pins == (["six==9.0"] if "9.0" in said else ["six==1.0"])
    else:
        with pytest.raises(LibraryError):
            await cache.resolve(["six"], [], TARGET)
    assert (tmp_path / "asked").exists() is bool(asked)


def test_a_cache_that_is_too_large_loses_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = LibraryCache(tmp_path, max_bytes=250, timeout_s=1)
    places = {
        "download": tmp_path / "uv" / "wheel",
        "old archive": tmp_path / "archives" / "p" / "old.tar",
        "archive": tmp_path / "archives" / "p" / "new.tar",
        "old package": cache.store / "p" / "old" / "file",
        "package": cache.store / "p" / "new" / "file",
    }
    for path in places.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100))
    # As uv does it: unpacked files are links to its own.
    os.link(places["package"], tmp_path / "uv" / "link")
    for name, days in {"old archive": 30, "archive": 20, "old package": 10, "package": 1}.items():
        used = places[name] if "archive" in name else places[name].parent
        os.utime(used, (time.time() - days * 24 * 3600,) * 2)
    cache.evict()
    assert {name for name, path in places.items() if path.exists()} == {"old package", "package"}
    LibraryCache(tmp_path, max_bytes=0, timeout_s=1).evict()
    # A session may still use what was asked for a day ago.
    assert {name for name, path in places.items() if path.exists()} == {"package"}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A registry that has six alone; every question to it is noted."""
    asked: list[list[str]] = []
    archive = tmp_path / "six.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("six.py"))

    async def pins(_: object, requirements: Sequence[str], *__: object) -> list[str]:
        asked.append(sorted(requirements))
        if set(requirements) != {"six"}:
            raise LibraryError("There is no package named nosuch.")
        return ["six==1.17.0"]

    async def archives(_: object, pins: Sequence[str], __: object) -> list[Path]:
        return [archive] if pins else []

    monkeypatch.setattr(LibraryCache, "resolve", pins)
    monkeypatch.setattr(LibraryCache, "archives", archives)
    return asked


async def test_a_session_that_asks_for_libraries_has_them_from_its_first_execution(
    proxy: Proxy, shelf: list[list[str]]
) -> None:
    session_id = await proxy.session(more_libraries=["six"])
    assert f"{LIBRARIES_PATH}/six.py" in proxy.sandbox(session_id).files
    assert (await proxy.execute(session_id, "path"))["stdout"] == f"{LIBRARIES_PATH}\n"
    assert (await proxy.execute(session_id, "path", libraries=["six"]))["status"] == "succeeded"
    assert shelf == [["six"]]


@pytest.mark.parametrize("key", ["libraries", "more_libraries"])
async def test_a_session_whose_libraries_cannot_be_had_is_refused_and_leaves_nothing(
    proxy: Proxy, shelf: list[list[str]], key: str
) -> None:
    response = await proxy.http.post("/sessions", json={"lang": "python", key: ["nosuch"]})
    assert (response.status_code, response.json()["field"]) == (422, "libraries")
    assert "nosuch" in response.json()["detail"]
    await eventually(lambda: not proxy.backend.sandboxes, what="the end of the sandbox")


async def test_pooled_sandboxes_have_their_template_s_libraries_before_anyone_asks(
    proxy: Proxy, shelf: list[list[str]]
) -> None:
    spec = {"template": "six", "lang": "python", "libraries": ["six"]}
    await proxy.http.put("/pool", json={"templates": [{**spec, "warm_pool_size": 1}]})
    ready = await eventually(lambda: [found for found in proxy.backend.sandboxes.values() if found.files])
    created = await proxy.create(**spec)
    assert created["pooled"] is True
    assert proxy.sandbox(created["session_id"]) is ready[0]
    assert (await proxy.execute(created["session_id"], "path"))["stdout"] == f"{LIBRARIES_PATH}\n"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("\u00d7 No solution found:\n \u2570\u2500\u25b6 Because nosuch was not found in the package registry and you "
         "require nosuch, we can conclude that your requirements are unsatisfiable.", "nosuch"),
        ("error: Failed to fetch: `https://user:secret@registry.example/six/`\n Caused by: dns error", "registry"),
        ("error: something else at https://user:secret@registry.example/x", ""),
        ("error: Failed to read from the cache at `/var/lib/secret/place`", ""),
    ],
)  # fmt: skip
def test_what_uv_says_is_told_without_addresses(said: str, words: str) -> None:
    text = uv.explain(said, TARGET)
    assert words in text
    assert "secret" not in text
    assert not ADDRESS.search(text)


async def test_uv_gets_none_of_the_proxy_s_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "uv"
    script.write_text("#!/bin/sh\nenv >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(uv, "find_uv_bin", lambda: str(script))
    monkeypatch.setenv("PROXY_TOKEN", "a-secret-of-the-proxy")
    with pytest.raises(LibraryError) as caught:
        await uv.resolve(["six"], [], TARGET, tmp_path)
    assert "a-secret" not in caught.value.detail
