"""The directories on this machine that hold the files of local sandboxes, and nothing of proxies that are dead."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llm_sandbox.local.files import safe_remove_tree

_LOCK = ".lock"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Workspaces:
    """One directory a running proxy, held by a lock that ends with its process, beneath one shared directory."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._lock: int | None = None
        self.directory = self._root / f"{os.getpid()}-{secrets.token_hex(4)}"

    def open(self) -> list[str]:
        """Take a directory of our own and remove those of dead proxies; return the names of the removed."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Without the shared lock another proxy could take a directory for dead before its owner has locked it.
        with _locked(self._root / _LOCK):
            removed = [entry.name for entry in self._root.iterdir() if entry.is_dir() and self._remove_if_dead(entry)]
            self.directory.mkdir(mode=0o700)
            self._lock = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return removed

    @staticmethod
    def _remove_if_dead(directory: Path) -> bool:
        try:
            descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = None
        except OSError:
            return False
        try:
            if descriptor is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            if descriptor is not None:
                os.close(descriptor)
        safe_remove_tree(directory)
        return True

    def create(self, name: str) -> Path:
        """Make the private directory of one sandbox, with its `workspace` and its `tmp`."""
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        (directory / "workspace").mkdir(mode=0o755)
        (directory / "tmp").mkdir(mode=0o777)
        return directory

    @staticmethod
    def remove(directory: Path) -> None:
        """Remove a sandbox's directory, whatever its code made of it."""
        safe_remove_tree(directory)

    def close(self) -> None:
        """Remove our own directory and let go of its lock."""
        if self._lock is not None:
            with suppress(OSError):
                safe_remove_tree(self.directory)
            os.close(self._lock)
            self._lock = None


def usage(directory: Path, *, max_entries: int) -> tuple[int, int]:
    """Return the bytes and the number of entries beneath a directory; stop counting past `max_entries`."""
    size = entries = 0
    pending = [directory]
    while pending and entries <= max_entries:
        with suppress(OSError), os.scandir(pending.pop()) as found:
            for entry in found:
                entries += 1
                with suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                if entries > max_entries:
                    break
    return size, entries
