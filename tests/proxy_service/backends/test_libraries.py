"""Libraries in sandboxes that have no network: the loopback interface is all that there is."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from proxy_service import library_links
from tests.proxy_service.backends.conftest import BUBBLEWRAP, DOCKER, MIB, Server, Show, make_settings, running

pytestmark = pytest.mark.timeout(400)

LIMITS = {"memory_bytes": 1024 * MIB, "cpus": 2.0, "pids": 128, "disk_bytes": 1024 * MIB}
PYTHON = ["matplotlib", "numpy", "pandas", "requests", "scikit-learn"]
USE_PYTHON = """
import socket
import matplotlib, numpy, pandas, requests, sklearn.linear_model
print([name for _, name in socket.if_nameindex()])
table = pandas.DataFrame({"x": numpy.arange(4.0), "y": numpy.arange(4.0) * 2})
print(float(sklearn.linear_model.LinearRegression().fit(table[["x"]], table["y"]).coef_[0].round(6)))
"""
USE_JAVASCRIPT = """
console.log(Object.keys(require('os').networkInterfaces()))
console.log(require('lodash').chunk([1, 2, 3, 4], 2).length)
import('lodash').then(found => console.log(found.default.last([1, 2, 3])))
"""


async def both_times(server: Server, show: Show, lang: str, libraries: list[str], code: str) -> tuple[str, str]:
    """Install libraries in two fresh sessions; show how long it took, and return what the code printed."""
    printed, took = [], []
    for _ in range(2):
        session_id = await server.session(lang=lang, limits=LIMITS)
        began = time.monotonic()
        answer = await server.run(session_id, "1", libraries=libraries)
        installed = time.monotonic()
        assert answer["status"] == "succeeded", answer
        await server.run(session_id, "1")
        # Without what it takes to start an interpreter that does nothing.
        took.append(max(0.0, 2 * installed - began - time.monotonic()))
        answer = await server.run(session_id, code)
        assert answer["status"] == "succeeded", answer["stderr"]
        printed.append(answer["stdout"])
        await server.http.delete(f"/sessions/{session_id}")
    names = ", ".join(libraries)
    show(f"\n{server.backend} {lang}: {names}: first {took[0]:.2f} s, again {took[1]:.2f} s")
    assert took[1] < took[0] / 2
    return printed[0], printed[1]


@pytest.mark.registry
@pytest.mark.parametrize("server", [BUBBLEWRAP, DOCKER], indirect=True)
async def test_python_s_libraries_come_into_a_sandbox_whose_only_interface_is_lo(server: Server, show: Show) -> None:
    printed = await both_times(server, show, "python", PYTHON, USE_PYTHON)
    assert printed == ("['lo']\n2.0\n", "['lo']\n2.0\n")


@pytest.mark.npm
@pytest.mark.parametrize("server", [BUBBLEWRAP, DOCKER], indirect=True)
async def test_npm_s_packages_come_into_a_sandbox_whose_only_interface_is_lo(server: Server, show: Show) -> None:
    if "javascript" not in await server.languages():
        return
    printed = await both_times(server, show, "javascript", ["lodash"], USE_JAVASCRIPT)
    assert printed == ("[ 'lo' ]\n2\n3\n", "[ 'lo' ]\n2\n3\n")


@pytest.mark.npm
@pytest.mark.parametrize("server", [DOCKER], indirect=True)
async def test_npm_s_packages_keep_their_versions_and_bring_what_they_need(server: Server) -> None:
    session_id = await server.session(lang="javascript", limits=LIMITS, more_libraries=["express@4"])
    code = "console.log(require('express/package').version.split('.')[0], typeof require('express')().get)"
    assert (await server.run(session_id, code))["stdout"] == "4 function\n"
    body: dict[str, Any] = {"code": code, "libraries": ["express@5"]}
    answer = await server.http.post(f"/sessions/{session_id}/execute", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "libraries")
    assert "express@4" in answer.json()["detail"]
    code += "\nconsole.log(require('is-number')(7))"
    assert (await server.run(session_id, code, libraries=["is-number"]))["stdout"] == "4 function\ntrue\n"


@pytest.mark.bubblewrap
@pytest.mark.registry
async def test_a_cache_that_was_removed_under_the_proxy_stops_no_session(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with running("bubblewrap", settings) as server:
        shutil.rmtree(settings.libraries_dir)
        session_id = await server.session(lang="python", more_libraries=["six"])
        answer = await server.run(session_id, "import os, six; print(os.path.realpath(six.__file__))")
        assert answer["stdout"] == "/sandbox/.sandboxweb/lib/six.py\n"
        # The next one shares them again.
        session_id = await server.session(lang="python", more_libraries=["six"])
        answer = await server.run(session_id, "import os, six; print(os.path.realpath(six.__file__))")
        assert answer["stdout"].startswith("/opt/sandboxweb/libraries/")


SPOIL = """
import os, six
place = os.path.realpath(six.__file__)
print(place.startswith("/opt/sandboxweb/libraries/"))
for spoil in (lambda: open(place, "a"), lambda: os.unlink(place), lambda: os.mkdir(os.path.dirname(place) + "/x")):
    try:
        spoil()
        print("spoilt")
    except OSError:
        print("refused")
"""


@pytest.mark.registry
@pytest.mark.parametrize("server", [BUBBLEWRAP, DOCKER], indirect=True)
async def test_what_sandboxes_share_none_of_them_can_change(server: Server) -> None:
    session_id = await server.session(lang="python", more_libraries=["six"])
    answer = await server.run(session_id, SPOIL)
    assert answer["stdout"].split() == ["True", "refused", "refused", "refused"], answer
    # What a session does to its own links is its own affair.
    answer = await server.run(session_id, "import six, os; os.unlink(six.__file__)")
    assert answer["status"] == "succeeded"
    other = await server.session(lang="python", more_libraries=["six"])
    answer = await server.run(other, SPOIL)
    assert answer["stdout"].split() == ["True", "refused", "refused", "refused"], answer


@pytest.mark.registry
@pytest.mark.parametrize("server", [BUBBLEWRAP, DOCKER], indirect=True)
async def test_a_sandbox_that_does_not_see_what_is_shared_gets_the_files(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_links, "SHARED_LIBRARIES", PurePosixPath("/opt/sandboxweb/libraries/nowhere"))
    session_id = await server.session(lang="python", more_libraries=["six"])
    answer = await server.run(session_id, "import os, six; print(os.path.realpath(six.__file__))")
    assert answer["stdout"] == "/sandbox/.sandboxweb/lib/six.py\n"


@pytest.mark.docker
@pytest.mark.registry
async def test_a_proxy_that_finds_a_session_again_keeps_the_versions_that_it_has(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    code = "import six; print(six.__version__)"
    async with running("docker", settings) as server:
        session_id = await server.session(lang="python", more_libraries=["six==1.16.0"])
    async with running("docker", settings) as server:
        path = f"/sessions/{session_id}"
        await eventually_found(server, path)
        assert (await server.run(session_id, code))["stdout"] == "1.16.0\n"
        answer = await server.http.post(f"{path}/execute", json={"code": code, "libraries": ["six==1.17.0"]})
        assert (answer.status_code, answer.json()["field"]) == (422, "libraries")
        assert "six==1.16.0" in answer.json()["detail"]
        assert (await server.run(session_id, code, libraries=["six", "idna"]))["stdout"] == "1.16.0\n"
        await server.http.delete(path)


async def eventually_found(server: Server, path: str) -> None:
    """Wait until a proxy that has just started has found a session."""
    deadline = time.monotonic() + 20
    while (await server.http.get(path)).status_code != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


GEM = """#!/bin/sh
# A stand-in for the registry: it has one gem.
if [ "$1 $2 $3" != "install --no-document hello" ]; then
    echo "ERROR: Could not find $3 at https://gems.example/x" >&2
    exit 2
fi
mkdir -p "$GEM_HOME/gems/hello-1.0/lib" "$GEM_HOME/specifications"
echo 'def hello; puts "hello"; end' >"$GEM_HOME/gems/hello-1.0/lib/hello.rb"
cat >"$GEM_HOME/specifications/hello-1.0.gemspec" <<'END'
Gem::Specification.new { |s| s.name = "hello"; s.version = "1.0"; s.summary = s.author = "x"; s.files = [] }
END
"""


@pytest.mark.parametrize("server", [DOCKER], indirect=True)
async def test_other_languages_use_their_own_package_manager_where_there_is_a_network(server: Server) -> None:
    body: dict[str, Any] = {"lang": "ruby", "more_libraries": ["hello"]}
    answer = await server.http.post("/sessions", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "libraries")
    assert "network" in answer.json()["detail"]
    env = {"PATH": "/sandbox/bin:/usr/local/bin:/usr/bin:/bin"}
    session_id = await server.session(lang="ruby", network="host", env=env)
    code = f"Dir.mkdir('bin'); File.write('bin/gem', {GEM!r}.gsub('\\n', \"\\n\")); File.chmod(0755, 'bin/gem')"
    answer = await server.run(session_id, code)
    assert answer["status"] == "succeeded", answer
    code = "require 'hello'\nhello"
    assert (await server.run(session_id, code, libraries=["hello"]))["stdout"] == "hello\n"
    body = {"code": code, "libraries": ["hello", "nosuch"]}
    answer = await server.http.post(f"/sessions/{session_id}/execute", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "libraries")
    assert "Could not find nosuch at the package registry" in answer.json()["detail"]
    # Nothing of it is left, and what was there works as before.
    code += "\nputs Dir.children('/sandbox/.sandboxweb')"
    assert (await server.run(session_id, code))["stdout"] == "hello\ngems\n"
