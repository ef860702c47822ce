"""Links to packages that sandboxes share: one a package, and real directories where packages meet."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from proxy_service.library_links import archive


def make(store: Path, package: str, *files: str) -> Path:
    """Unpack a package of empty files."""
    for name in files:
        path = store / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return store / package


def links(*packages: Path, store: Path) -> dict[str, str]:
    """Return where each member of the archive leads; "" for a directory."""
    with tarfile.open(fileobj=io.BytesIO(archive(packages, store))) as tar:
        return {member.name: member.linkname for member in tar}


def test_a_package_is_one_link_with_one_for_what_is_about_it(tmp_path: Path) -> None:
    files = ("numpy/__init__.py", "numpy/core/x.so", "numpy.libs/libz.so", "numpy-2.0.dist-info/METADATA", "one.py")
    package = make(tmp_path, "3.11/numpy==2.0", *files)
    there = "/opt/sandboxweb/libraries/3.11/numpy==2.0"
    names = ("numpy", "numpy-2.0.dist-info", "numpy.libs", "one.py")
    assert links(package, store=tmp_path) == {name: f"{there}/{name}" for name in names}


def test_a_namespace_is_a_directory_to_which_another_package_can_add(tmp_path: Path) -> None:
    first = make(tmp_path, "p/a==1", "google/api/__init__.py")
    second = make(tmp_path, "p/b==1", "google/auth/__init__.py", "google/auth/deep/x.py")
    one, two = links(first, store=tmp_path), links(second, store=tmp_path)
    assert one == {"google": "", "google/api": "/opt/sandboxweb/libraries/p/a==1/google/api"}
    assert two == {"google": "", "google/auth": "/opt/sandboxweb/libraries/p/b==1/google/auth"}
    assert links(first, second, store=tmp_path) == {**one, **two}


def test_a_package_that_two_distributions_fill_is_merged(tmp_path: Path) -> None:
    first = make(tmp_path, "p/a==1", "both/__init__.py", "both/a.py")
    second = make(tmp_path, "p/b==1", "both/__init__.py", "both/b.py")
    found = links(first, second, store=tmp_path)
    assert sorted(found) == ["both", "both/__init__.py", "both/a.py", "both/b.py"]
    assert found["both"] == ""
    assert found["both/__init__.py"].endswith("a==1/both/__init__.py")
