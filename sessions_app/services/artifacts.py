"""Keeping what executions leave: bytes in `$DATA_DIR/artifacts`, rows that say whose they are and until when."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from time import monotonic, time
from typing import IO, Any
from urllib.parse import unquote_to_bytes

import httpx
from django.conf import settings
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Sum

from sessions_app import clock
from sessions_app.exceptions import ArtifactMissing, SandboxwebError, TooLarge
from sessions_app.models import Artifact, Execution
from sessions_app.proxy_client import proxy
from sessions_app.services.artifact_kinds import content_type
from sessions_app.services.connections import release_connection

logger = logging.getLogger(__name__)

MAX_ARTIFACTS = 20
MAX_ARTIFACT_BYTES = 16 * 1024 * 1024
# Answering must not wait for long: what is not fetched by then is not kept.
FETCH_S = 15.0
# What the index that keeps them once can hold, beside a name.
MAX_PATH_BYTES = 1000
CHUNK_BYTES = 256 * 1024
# How old a file without a row must be before it is nobody's: its writer may not have written the row yet.
ORPHAN_AGE_S = 3600
SHARDS = 256


def path_of(artifact_id: uuid.UUID) -> Path:
    """Return where the bytes of an artifact lie."""
    name = str(artifact_id)
    return settings.ARTIFACTS_DIR / name[:2] / name


def keep_artifact(
    *, execution: Execution, name: str, content_type: str, chunks: Iterable[bytes], path: str = ""
) -> Artifact:
    """Keep bytes for an execution, and return their row; the same path and name again returns the first row.

    Raises TooLarge, with nothing kept, for more than an artifact may have or its owner's quota has room for.
    """
    session = execution.session
    artifact = Artifact(
        owner_id=session.owner_id,
        session=session,
        execution=execution,
        name=_short(name),
        path=path,
        content_type=content_type,
        expires_at=_expires_at(execution),
    )
    file = path_of(artifact.pk)
    room = min(MAX_ARTIFACT_BYTES, settings.ARTIFACT_QUOTA_BYTES - kept_bytes(session.owner_id))
    release_connection()
    try:
        artifact.size, artifact.sha256 = _write(file, chunks, room)
        with transaction.atomic():
            artifact.save(force_insert=True)
    except IntegrityError:
        file.unlink(missing_ok=True)
        return Artifact.objects.get(execution=execution, path=path, name=artifact.name)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return artifact


def kept_bytes(owner_id: int) -> int:
    """Return how much is kept for a user."""
    return int(Artifact.objects.filter(owner_id=owner_id).aggregate(total=Sum("size"))["total"] or 0)


def _write(file: Path, chunks: Iterable[bytes], room: int) -> tuple[int, str]:
    """Write the bytes; return how many they are, and their SHA-256."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    size, digest = 0, hashlib.sha256()
    with file.open("xb") as output:
        for chunk in chunks:
            size += len(chunk)
            if size > room:
                raise TooLarge("artifact", "There is no room to keep this artifact.")
            digest.update(chunk)
            output.write(chunk)
    return size, digest.hexdigest()


def _short(name: str) -> str:
    """Return a name that the column holds, with its ending."""
    stem, dot, suffix = name.rpartition(".")
    return name if len(name) <= 255 else f"{stem[: 254 - len(suffix)]}{dot}{suffix}"[-255:]


def _expires_at(execution: Execution) -> datetime | None:
    """Return when an artifact goes: its retention after the latest instant at which its session can end."""
    if settings.ARTIFACT_RETENTION is None:
        return None
    return (execution.session.lifetime_ends_at or clock.now()) + settings.ARTIFACT_RETENTION


# --- What an execution left in its workspace --------------------------------------------------------------------------


def keep_changed(execution: Execution, files: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep those of the files that an execution made or changed which are artifacts; return them as answers have them.

    Costs nothing where there are none. What cannot be fetched now is not kept: the result is worth more.
    """
    wanted = [item for item in files if _is_wanted(item["path"], item["size"])]
    kept: list[dict[str, Any]] = []
    until = monotonic() + FETCH_S
    for item in wanted[:MAX_ARTIFACTS]:
        if monotonic() > until:
            break
        try:
            artifact = _fetch(execution, item, until)
        except TooLarge as error:
            logger.info("%s of execution %s is not kept: %s", item["path"], execution.pk, error)
        except (SandboxwebError, httpx.HTTPError, httpx.StreamError, OSError, DatabaseError) as error:
            logger.warning("%s of execution %s could not be kept: %s", item["path"], execution.pk, error)
        else:
            kept.append(brief(artifact))
    return kept


def _is_wanted(path: str, size: int) -> bool:
    return content_type(path) is not None and size <= MAX_ARTIFACT_BYTES and len(path.encode()) <= MAX_PATH_BYTES


def _fetch(execution: Execution, item: Mapping[str, Any], until: float) -> Artifact:
    path = item["path"]
    raw = unquote_to_bytes(item["encoded_path"]) if "encoded_path" in item else path.encode()
    response = proxy().transfer("GET", execution.session_id, raw, params={}, headers={}, timeout_s=FETCH_S)
    try:
        return keep_artifact(
            execution=execution,
            name=path.rpartition("/")[2],
            content_type=content_type(path) or "application/octet-stream",
            chunks=_in_time(response, until),
            path=path,
        )
    finally:
        response.close()


def _in_time(response: httpx.Response, until: float) -> Iterator[bytes]:
    for chunk in response.iter_bytes(CHUNK_BYTES):
        if monotonic() > until:
            raise TooLarge("artifact", "It takes too long to load.")
        yield chunk


def brief(artifact: Artifact) -> dict[str, Any]:
    """Return an artifact as the answer to its execution has it."""
    return {
        "id": str(artifact.pk),
        "name": artifact.name,
        "path": artifact.path,
        "content_type": artifact.content_type,
        "size": artifact.size,
        "url": f"/artifacts/{artifact.pk}",
    }


# --- The end of artifacts ---------------------------------------------------------------------------------------------


def drop_expired(*, limit: int) -> int:
    """Delete artifacts past their time, at most `limit`, bytes and rows; return how many."""
    keys = list(Artifact.objects.expired(clock.now()).values_list("pk", flat=True)[:limit])
    Artifact.objects.filter(pk__in=keys).delete()
    return len(keys)


def remove_bytes(artifact_id: uuid.UUID) -> None:
    """Remove what a deleted row told of."""
    path_of(artifact_id).unlink(missing_ok=True)


def drop_orphans() -> int:
    """Remove old files without a row, which a process left that was killed; look at one shard in 256 a minute."""
    shard = settings.ARTIFACTS_DIR / f"{int(time() / 60) % SHARDS:02x}"
    old: dict[str, os.DirEntry[str]] = {}
    with suppress(FileNotFoundError), os.scandir(shard) as entries:
        for entry in entries:
            with suppress(ValueError, FileNotFoundError):
                if entry.stat().st_mtime < time() - ORPHAN_AGE_S:
                    old[str(uuid.UUID(entry.name))] = entry
    known = {str(pk) for pk in Artifact.objects.filter(pk__in=list(old)).values_list("pk", flat=True)} if old else set()
    orphans = [entry for name, entry in old.items() if name not in known]
    for entry in orphans:
        Path(entry.path).unlink(missing_ok=True)
    return len(orphans)


def open_bytes(artifact: Artifact) -> IO[bytes]:
    """Open an artifact's bytes. Raises ArtifactMissing when they are gone."""
    try:
        return path_of(artifact.pk).open("rb")
    except FileNotFoundError as error:
        raise ArtifactMissing("The bytes of this artifact are gone.") from error
