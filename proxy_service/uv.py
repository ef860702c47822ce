"""The one file that runs uv: wheels only, so that nothing foreign runs on the proxy's side."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from proxy_service.errors import LibraryError, RegistryAway

_PASSED_ON = re.compile(r"UV_.*|.*_proxy|SSL_CERT_.*|PATH|HOME|NETRC|LANG|LC_.*|TMPDIR", re.IGNORECASE)
_URL = re.compile(r"[a-z]+://\S+")
_PATH = re.compile(r"(?<![\w.:/])/[\w.+@-]+(?:/[\w.+@-]*)+")
_GLYPHS = re.compile(r"[\u00d7\u2570\u2500\u25b6\u2502\u251c]+|\x1b\[[0-9;]*m")
_UNREACHABLE = re.compile(
    r"failed to fetch|error sending request|dns error|connection refused|timed out", re.IGNORECASE
)
_UNKNOWN = re.compile(r"(\S+) was not found in the package registry")
_NO_VERSION = re.compile(r"there (?:is|are) no versions? of (\S+?),? and", re.IGNORECASE)
_NO_WHEEL = re.compile(r"(\S+) (?:has|have) no (?:usable )?wheels", re.IGNORECASE)
_CONCLUSION = re.compile(r",? (?:so )?we can conclude that your requirements are unsatisfiable\.?", re.IGNORECASE)
MAX_REASON_CHARS = 600


@dataclass(frozen=True, slots=True)
class Target:
    """For which interpreter wheels are chosen: "3.11" and uv's name of its platform."""

    python: str
    platform: str


async def resolve(requirements: list[str], constraints: list[str], target: Target, directory: Path) -> list[str]:
    """Return "name==version" for all that the requirements need. Raises LibraryError with the resolver's reason."""
    fixed = directory / "constraints.txt"
    await asyncio.to_thread(fixed.write_text, "\n".join(constraints))
    arguments = ["pip", "compile", "-", "--no-header", "--no-annotate", "--constraints", str(fixed)]
    output = await _run(arguments, target, directory, "\n".join(requirements))
    return [line for line in output.splitlines() if "==" in line and not line.startswith(("#", " "))]


async def install(pins: list[str], target: Target, directory: Path) -> None:
    """Unpack the wheels of the pins, and nothing else, into `directory`/site. Raises LibraryError."""
    arguments = ["pip", "install", "--no-deps", "--target", str(directory / "site"), "--requirements", "-"]
    await _run(arguments, target, directory, "\n".join(pins))


async def _run(arguments: list[str], target: Target, directory: Path, text: str) -> str:
    command = [
        find_uv_bin(),
        *arguments,
        *("--quiet", "--color", "never", "--no-progress", "--only-binary", ":all:", "--python", sys.executable),
        *("--python-version", target.python, "--python-platform", target.platform),
    ]
    environment = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    environment.setdefault("UV_CACHE_DIR", str(directory.parent / "uv"))
    environment["UV_HTTP_RETRIES"] = environment.get("UV_HTTP_RETRIES", "2")
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = await process.communicate(text.encode())
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        said = errors.decode(errors="replace")
        raise (RegistryAway if _UNREACHABLE.search(said) else LibraryError)(explain(said, target))
    return output.decode()


def explain(said: str, target: Target) -> str:
    """Return uv's complaint in plain words, without addresses (they may hold passwords) and paths of this machine."""
    text = " ".join(_GLYPHS.sub(" ", said).split())
    text = _PATH.sub("a file", _URL.sub("the package registry", text))
    if match := _UNKNOWN.search(text):
        return f"There is no package named {match[1]}."
    if match := _NO_WHEEL.search(text):
        where = f"Python {target.python} on {target.platform}"
        return f"{match[1]} has no wheel for {where}, and nothing is built from source here."
    if _UNREACHABLE.search(text):
        return "The package registry cannot be reached."
    if match := _NO_VERSION.search(text):
        return f"There is no version {match[1]}."
    start = text.find("Because ")
    reason = text[start + len("Because ") :] if start >= 0 else text
    reason = _CONCLUSION.sub("", reason.split(" hint:")[0]).strip().rstrip(".")
    reason = reason.replace("you require", "these are required:").replace("your requirements", "the requirements")
    return f"The libraries cannot be installed together: {reason[:MAX_REASON_CHARS]}."
