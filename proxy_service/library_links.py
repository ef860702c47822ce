"""Libraries that sandboxes share: a few links into a directory that all of them see and none can write to."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

SHARED_LIBRARIES = PurePosixPath("/opt/sandboxweb/libraries")
"""Where a sandbox sees the cache's unpacked packages; its agent lets links lead there and nowhere else."""

_NEVER_MERGED = (".dist-info", ".libs", ".data")
Places = list[tuple[Path, PurePosixPath]]


def store_of(libraries_dir: Path) -> Path:
    """Return where the cache in a directory keeps unpacked packages."""
    return libraries_dir / "packages"


def archive(packages: Iterable[Path], store: Path) -> bytes:
    """Return a tar file of links to what is in the packages' directories, which lie beneath `store`.

    A directory that several packages share, or that is no package of its own (a namespace), is a real one with links
    in it, so that a later package can add to it.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        places = [(package, SHARED_LIBRARIES / package.relative_to(store)) for package in packages]
        _add(tar, PurePosixPath(), places)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, prefix: PurePosixPath, places: Places) -> None:
    found: dict[str, Places] = {}
    for here, there in places:
        for name in os.listdir(here):
            found.setdefault(name, []).append((here / name, there / name))
    for name, owners in sorted(found.items()):
        member = tarfile.TarInfo(str(prefix / name))
        if _is_merged(name, owners):
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
            _add(tar, prefix / name, [owner for owner in owners if owner[0].is_dir()])
        else:
            member.type, member.linkname = tarfile.SYMTYPE, str(owners[0][1])
            tar.addfile(member)


def _is_merged(name: str, owners: Places) -> bool:
    here = owners[0][0]
    if name.endswith(_NEVER_MERGED) or not here.is_dir():
        return False
    return len(owners) > 1 or not (here / "__init__.py").exists()
