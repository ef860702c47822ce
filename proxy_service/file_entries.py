"""Names and paths in a workspace, and what a sandbox says of its files: checked before it is part of an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from proxy_service.backends.base import FileRefused
from proxy_service.errors import (
    FileConflict,
    FileMissing,
    InvalidRequest,
    NoSpace,
    ProxyError,
    SandboxBroken,
    SandboxError,
    TooManyWaiting,
    Unprocessable,
)

WORKSPACE = "/sandbox"
MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255
MAX_CHANGED_FILES = 100
OWN_DIRECTORY = ".sandboxweb"
TYPES = ("file", "directory", "link", "other")


@dataclass(frozen=True)
class Entry:
    """Describe one file, directory or link; `path` is relative to the workspace."""

    path: str
    type: str
    size: int
    mode: int
    mtime: float
    target: str | None = None

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rpartition("/")[2]

    def describe(self) -> dict[str, Any]:
        """Return the entry as JSON has it; a name that is no text is also given as it stands in an address."""
        told: dict[str, Any] = {
            "name": shown(self.name),
            "path": shown(self.path),
            "type": self.type,
            "size": self.size,
            "mode": f"{self.mode:04o}",
            "mtime": datetime.fromtimestamp(self.mtime, UTC).isoformat(),
        }
        if self.target is not None:
            told["target"] = shown(self.target)
        if shown(self.path) != self.path:
            told["encoded_path"] = encoded(self.path)
        return told


def shown(name: str) -> str:
    """Return a name as text, with � for what is no text in it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def changed_files(end: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what an execution's `exit` says of files that it made or changed: well-formed entries alone."""
    said = end.get("files")
    found = []
    for item in said[:MAX_CHANGED_FILES] if isinstance(said, list) else ():
        path, change, size, mode = (field(item, name) for name in ("path", "change", "size", "mode"))
        if not isinstance(path, str) or len(path) > MAX_PATH_BYTES or change not in ("created", "modified"):
            continue
        if type(size) is not int or type(mode) is not int or not 0 <= size < 2**63 or not 0 <= mode <= 0o7777:
            continue
        told = {"path": shown(path), "size": size, "mode": f"{mode:04o}", "change": change}
        found.append(told if shown(path) == path else {**told, "encoded_path": encoded(path)})
    return found


def encoded(path: str) -> str:
    """Return a path as it stands in an address."""
    return quote(path.encode("utf-8", "surrogateescape"))


def workspace_path(raw: bytes) -> str:
    """Return a path relative to the workspace, "" for itself, from the bytes that a caller gave.

    An absolute path is taken if it begins with `/sandbox`, which is where code sees the workspace.

    Raises InvalidRequest, and FileConflict for what is this server's own.
    """
    if b"\0" in raw:
        raise InvalidRequest("`path` must not contain NUL characters.", field="path")
    if len(raw) > MAX_PATH_BYTES:
        raise InvalidRequest(f"`path` may have at most {MAX_PATH_BYTES} bytes.", field="path")
    path = raw.decode("utf-8", "surrogateescape")
    if path.startswith("/"):
        if path.rstrip("/") != WORKSPACE and not path.startswith(WORKSPACE + "/"):
            raise InvalidRequest(f"`path` must lie in the workspace, {WORKSPACE}.", field="path")
        path = path[len(WORKSPACE) :]
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if parts and parts[0] == OWN_DIRECTORY:
        raise FileConflict("forbidden", f"{OWN_DIRECTORY!r} is this server's own.")
    if ".." in parts:
        raise InvalidRequest("`path` must not contain `..`.", field="path")
    if any(len(part.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES for part in parts):
        raise InvalidRequest(f"Each name in `path` may have at most {MAX_NAME_BYTES} bytes.", field="path")
    return "/".join(parts)


def entry_of(path: str, said: object) -> Entry:
    """Return the entry at a path from what the sandbox says of it. Raises SandboxBroken for what cannot be true."""
    kind, target = field(said, "type"), field(said, "target")
    numbers = [field(said, name) for name in ("size", "mode", "mtime")]
    if kind not in TYPES or any(type(number) not in (int, float) for number in numbers):
        raise lied()
    size, mode, mtime = (float(number) for number in numbers)  # type: ignore[arg-type]
    if not all(map(math.isfinite, (size, mode, mtime))) or not 0 <= size < 2**63 or not 0 <= mode <= 0o7777:
        raise lied()
    return Entry(
        path=path,
        type=str(kind),
        size=int(numbers[0]),  # type: ignore[call-overload]
        mode=int(mode),
        mtime=min(max(mtime, 0.0), 4e9),
        target=text(target) if target is not None else None,
    )


def text(value: object) -> str:
    """Return a name or a path that the sandbox gave. Raises SandboxBroken for what is none."""
    if not isinstance(value, str) or len(value) > MAX_PATH_BYTES:
        raise lied()
    return value


def lied() -> SandboxBroken:
    """Return the error for what the sandbox cannot have said in good faith."""
    return SandboxBroken("The sandbox gave a false account of its files.")


def field(said: object, name: str) -> object:
    """Return a field of what the sandbox said, None where it said nothing of the kind."""
    return said.get(name) if isinstance(said, dict) else None


def explained(error: FileRefused, path: str) -> ProxyError:
    """Return what the agent's refusal means to a caller."""
    name = shown(path)[:200]
    match error.code:
        case "not_found":
            return FileMissing(name)
        case "bad_path":
            return InvalidRequest(f"`path`: {error.message}", field="path")
        case "bad_archive":
            return InvalidRequest(f"The archive is refused: {error.message}", field="body")
        case "no_space":
            return NoSpace("The sandbox's disk is full.", field="body")
        case "exists":
            return FileConflict("exists", f"There is something at the new path already, or at {name!r}.")
        case "not_empty":
            return FileConflict("not_empty", f"The directory {name!r} is not empty; `?recursive=true` removes it all.")
        case "is_a_directory":
            return FileConflict("is_a_directory", f"{name!r} is a directory.")
        case "not_a_directory":
            return FileConflict("not_a_directory", f"{name!r} is no directory, or something above it is none.")
        case "not_a_file" | "os_error":
            return FileConflict("not_a_file", f"{name!r} is no regular file: {error.message}")
        case "forbidden":
            return FileConflict("forbidden", f"The code's user may not do this with {name!r}: {error.message}")
        case "busy":
            return TooManyWaiting("Too many files of this session are being moved at once. Try again in a moment.")
        case "bad_request":
            return Unprocessable(f"This cannot be done with {name!r}: {error.message[:300]}", field="path")
        case _:
            return SandboxError(f"The file operation failed: {error.message or error.code}")
