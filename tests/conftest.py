"""What every test may use: which groups run here, a private PostgreSQL, Podman's service, a browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.supervisor.processes import TETHER
from tests import groups, postgres
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

LEFT_OUT = pytest.StashKey[dict[str, int]]()
# Without these Chromium calls home, and as root it refuses to run at all.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def pytest_configure() -> None:
    """Take signals as in a shell: a run in the background inherits that some are ignored, and so would its tests."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGQUIT: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a test whose group cannot run here; in CI that is a failure."""
    for mark in item.iter_markers():
        why = groups.why_not(mark.name) if mark.name in groups.CHECKS else None
        if why is None:
            continue
        left_out = item.config.stash.setdefault(LEFT_OUT, {})
        left_out[mark.name] = left_out.get(mark.name, 0) + 1
        if groups.nothing_may_be_left_out():
            pytest.fail(f"group {mark.name} cannot run here, and CI leaves nothing out: {why}", pytrace=False)
        pytest.skip(f"group {mark.name}: {why}")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which groups were left out, and why."""
    left_out = config.stash.get(LEFT_OUT, {})
    elsewhere = os.environ.get("SANDBOXWEB_LEFT_OUT", "")
    if not left_out and not elsewhere:
        terminalreporter.write_line("left out: nothing")
        return
    terminalreporter.section("left out")
    for group, count in sorted(left_out.items()):
        terminalreporter.write_line(f"{group} ({count} tests): {groups.why_not(group)}")
    if elsewhere:
        terminalreporter.write_line(elsewhere)


@pytest.fixture(autouse=True)
def _clock_of_the_tests() -> Iterator[None]:
    """Have deadlines follow the wall clock, on which time-machine travels; `clock.using` puts another one over it."""
    from django.utils import timezone

    from sessions_app import clock

    with clock.using(timezone.now):
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a private PostgreSQL server (database `postgres`); use it in tests marked `postgres`."""
    with postgres.cluster() as url:
        yield url


@pytest.fixture(scope="session")
def podman_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a private Podman service over the machine's images; use it in tests marked `podman`."""
    socket = tmp_path_factory.mktemp("podman") / "podman.sock"
    command = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
    tether = [sys.executable, "-I", "-S", TETHER, str(os.getpid())]
    # What its monitors leave behind, such as a file that says that memory ran out, they leave where it was started.
    with subprocess.Popen(
        [*tether, *command], cwd=socket.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(socket.exists, timeout_s=30, what="Podman's service")
        yield f"unix://{socket}"
        process.terminate()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a headless Chromium that fails the test when a script on it throws; needs the mark `browser`."""
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=groups.chromium(), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert errors == []
