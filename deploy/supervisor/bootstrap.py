"""Make `.venv` and install a hashed lock file into it, unless that was done already.

Runs under any Python 3.11 or newer, before anything is installed: `python -m deploy.supervisor.bootstrap LOCK…`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TAIL_LINES = 12
NETWORK_HINT = """\
The first install needs a Python package registry and could not use it (see the lines above).
Check the network of this machine; behind a proxy set HTTPS_PROXY, with a mirror set PIP_INDEX_URL and UV_DEFAULT_INDEX.
Later starts need no network."""
NO_VENV_HINT = "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"


class BootstrapError(Exception):
    """Say in plain words why the environment cannot be made."""


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Install each named lock file; return a process exit code."""
    try:
        for name in arguments:
            ensure_installed(root / name, root / ".venv")
    except BootstrapError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def ensure_installed(lock: Path, environment: Path) -> bool:
    """Install `lock` into `environment`; return False when that very lock was installed before."""
    python = environment / "bin" / "python"
    version = interpreter_version(python)
    fingerprint = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = environment / f".{lock.name}.sha256"
    if version and stamp.is_file() and stamp.read_text().split() == [fingerprint, version]:
        return False
    started = time.monotonic()
    if not version:
        make_environment(environment)
        version = interpreter_version(python)
    packages = len(re.findall(r"^[A-Za-z0-9][^ ]*==", lock.read_text(), re.MULTILINE))
    say(f"Installing {packages} packages from {lock.name} (first run only)")
    uv = ensure_uv(lock, environment)
    run([str(uv), "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(lock)])
    stamp.write_text(f"{fingerprint} {version}\n")
    say(f"Installed in {time.monotonic() - started:.0f} s")
    return True


def interpreter_version(python: Path) -> str:
    """Return `3.11.7`, or an empty string when the interpreter does not work or is too old."""
    program = "import platform, sys; sys.version_info >= (3, 11) and print(platform.python_version())"
    try:
        return subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def make_environment(environment: Path) -> None:
    """Make the virtual environment from the running interpreter, anew if a broken one is there."""
    say(f"Making {environment.name} with Python {sys.version.split()[0]}")
    try:
        venv.EnvBuilder(clear=environment.exists(), symlinks=True, with_pip=True).create(environment)
    except (OSError, subprocess.CalledProcessError, SystemExit) as error:
        # Half an environment would look like a whole one to the next start.
        shutil.rmtree(environment, ignore_errors=True)
        raise BootstrapError(f"{error}\n{NO_VENV_HINT}") from error


def ensure_uv(lock: Path, environment: Path) -> Path:
    """Install the lock's own uv with pip, checked against its hashes, and return its path."""
    uv = environment / "bin" / "uv"
    requirement = lock_entry(lock.read_text(), "uv")
    wanted = requirement.split("==", 1)[1].split()[0]
    if uv.is_file():
        found = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False).stdout.split()
        if found[1:2] == [wanted]:
            return uv
    with tempfile.TemporaryDirectory() as folder:
        only_uv = Path(folder) / "uv.txt"
        only_uv.write_text(requirement)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        run([*pip, "--retries", "2", "--require-hashes", "-r", str(only_uv)])
    return uv


def lock_entry(lock: str, package: str) -> str:
    """Cut one requirement with its hashes out of a lock file."""
    match = re.search(rf"^{re.escape(package)}==.*(?:\n[ \t]+--hash=.*)*", lock, re.MULTILINE)
    if match is None:
        raise BootstrapError(f"The lock file does not name {package}.")
    return match.group(0) + "\n"


def run(command: list[str]) -> None:
    """Run an installer quietly; show the end of what it said when it fails."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-TAIL_LINES:])
        raise BootstrapError(f"{tail}\n\n{NETWORK_HINT}")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
