"""Podman's own syscall filter lets code make namespaces; return one that does not, as Docker's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OWN_PROFILE = Path("/usr/share/containers/seccomp.json")
DENIED = frozenset(
    {"clone", "clone3", "fsconfig", "fsmount", "fsopen", "fspick", "keyctl", "mount", "mount_setattr", "move_mount"}
    | {"open_tree", "pivot_root", "setns", "umount", "umount2", "unshare"}
)
NEW_NAMESPACE_FLAGS = 0x7E020000
EPERM, ENOSYS = 1, 38


def strict_profile(profile: dict[str, Any]) -> dict[str, Any]:
    """Return a filter without what makes namespaces and mounts; threads and processes can still be made."""
    rules = []
    for rule in profile["syscalls"]:
        names = [name for name in rule["names"] if name not in DENIED]
        if names:
            rules.append({**rule, "names": names})
    flags = {"index": 0, "value": NEW_NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules += [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [flags]},
        # Its flags are behind a pointer that no filter can follow; the C library then uses `clone`.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        {"names": sorted(DENIED - {"clone", "clone3"}), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
    ]
    return {**profile, "syscalls": rules}


def write_strict_profile(directory: Path) -> Path | None:
    """Write the filter to a file that Podman's service can read; None where Podman has none of its own."""
    try:
        profile = json.loads(OWN_PROFILE.read_text())
    except FileNotFoundError:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "podman-seccomp.json"
    path.write_text(json.dumps(strict_profile(profile)))
    return path
