"""Artifacts: what code leaves is kept once, bounded, for its owner, and no longer than it should be."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import TestCase

from sessions_app import clock, reaper
from sessions_app.attempts import Reaper
from sessions_app.exceptions import TooLarge
from sessions_app.models import Artifact, Execution, Session
from sessions_app.services import artifacts
from sessions_app.services.executions import complete_execution, run_once, submit_execution
from sessions_app.services.settlement import settle_execution
from tests.sessions_app.fake_proxy import FakeProxy

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    """Keep the bytes in a directory of the test's own."""
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return tmp_path / "artifacts"


def stored(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def run(session: Session) -> Execution:
    return complete_execution(submit_execution(session=session, code="plot", actor="api"), actor="api")


def test_a_picture_that_code_made_is_kept(session: Session, proxy: FakeProxy, folder: Path) -> None:
    proxy.files = {"out/plot.png": PNG, "notes.txt": b"no artifact"}
    execution = run(session)
    assert [item["path"] for item in execution.files] == ["out/plot.png", "notes.txt"]
    artifact = Artifact.objects.get()
    assert execution.artifacts == [
        {
            "id": str(artifact.pk),
            "name": "plot.png",
            "path": "out/plot.png",
            "content_type": "image/png",
            "size": len(PNG),
            "url": f"/artifacts/{artifact.pk}",
        }
    ]
    assert (artifact.owner, artifact.session, artifact.execution) == (session.owner, session, execution)
    assert artifact.sha256 == hashlib.sha256(PNG).hexdigest()
    assert stored(folder) == [PNG]


def test_code_that_leaves_no_artifact_costs_no_request(session: Session, proxy: FakeProxy) -> None:
    proxy.files = {"notes.txt": b"x"}
    execution = run(session)
    assert execution.artifacts == []
    assert not [request for request in proxy.requests if "/files" in request]


def test_settlement_by_the_reaper_keeps_them_too_and_only_once(
    running: Execution, proxy: FakeProxy, folder: Path
) -> None:
    proxy.files = {"a.csv": b"1,2"}
    proxy.execution(running).end(files=proxy.changed())
    same = Execution.objects.select_related("session__template").get(pk=running.pk)
    assert settle_execution(running, actor="reaper").status == "succeeded"
    # Another web process read the row before it was settled, and settles it as well.
    settle_execution(same, actor="api")
    assert Artifact.objects.count() == 1
    assert stored(folder) == [b"1,2"]
    assert same.artifacts == running.artifacts
    assert [item["name"] for item in same.artifacts] == ["a.csv"]


def test_a_one_shot_leaves_its_artifacts(owner: User, proxy: FakeProxy) -> None:
    proxy.files = {"a.svg": b"<svg/>"}
    execution = run_once(owner=owner, code="plot", actor="api")
    assert [item["content_type"] for item in execution.artifacts] == ["image/svg+xml"]
    assert not proxy.sandboxes


def test_a_file_that_cannot_be_fetched_spoils_no_result(session: Session, proxy: FakeProxy, folder: Path) -> None:
    proxy.files = {"gone.png": PNG, "here.png": PNG}
    proxy.failures[f"GET /sessions/{session.pk}/files/gone"] = httpx.Response(
        404, json={"error": "file_not_found", "detail": "Not there.", "field": "path"}
    )
    execution = run(session)
    assert execution.status == "succeeded"
    assert [item["name"] for item in execution.artifacts] == ["here.png"]
    assert len(stored(folder)) == 1


def test_number_size_and_quota_are_bounded(
    session: Session, proxy: FakeProxy, settings: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(artifacts, "MAX_ARTIFACT_BYTES", 1000)
    proxy.files = {"large.png": bytes(1001)} | {f"{number:02}.png": bytes(10) for number in range(30)}
    assert len(run(session).artifacts) == artifacts.MAX_ARTIFACTS
    settings.ARTIFACT_QUOTA_BYTES = artifacts.kept_bytes(session.owner_id) + 15
    proxy.files = {"a.png": bytes(10), "b.png": bytes(10)}
    assert [item["name"] for item in run(session).artifacts] == ["a.png"]
    assert len(stored(folder)) == artifacts.MAX_ARTIFACTS + 1


def test_a_path_that_no_index_holds_spoils_no_result(session: Session, proxy: FakeProxy) -> None:
    proxy.files = {f"{'d' * 250}/" * 8 + "a.png": PNG, "b.png": PNG}
    assert [item["name"] for item in run(session).artifacts] == ["b.png"]


def test_more_than_was_announced_leaves_nothing(running: Execution, folder: Path, settings: Any) -> None:
    settings.ARTIFACT_QUOTA_BYTES = 25
    with pytest.raises(TooLarge):
        artifacts.keep_artifact(
            execution=running, name="x.csv", content_type="text/csv", chunks=iter([bytes(10)] * 3), path="x.csv"
        )
    assert stored(folder) == []
    assert not Artifact.objects.exists()


def test_a_very_long_name_keeps_its_ending(running: Execution) -> None:
    kept = artifacts.keep_artifact(
        execution=running, name="ä" * 400 + ".csv", content_type="text/csv", chunks=[b"1"], path=""
    )
    kept.refresh_from_db()
    assert len(kept.name) == 255
    assert kept.name.endswith("ä.csv")


def test_an_artifact_outlives_its_session_by_its_retention(
    make_session: Callable[..., Session], proxy: FakeProxy, settings: Any, folder: Path
) -> None:
    settings.ARTIFACT_RETENTION = timedelta(days=2)
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as traveller:
        proxy.files = {"a.png": PNG}
        session = make_session(max_lifetime=3600)
        run(session)
        kept = Artifact.objects.get()
        assert kept.expires_at == clock.now() + timedelta(seconds=3600, days=2)
        traveller.shift(timedelta(days=2))
        assert reaper.drop_artifacts(Reaper()) == 0
        Session.objects.filter(pk=session.pk).delete()
        kept.refresh_from_db()
        assert (kept.session, kept.execution) == (None, None)
        traveller.shift(timedelta(seconds=3601))
        with TestCase.captureOnCommitCallbacks(execute=True):
            assert reaper.drop_artifacts(Reaper()) == 1
    assert not Artifact.objects.exists()
    assert stored(folder) == []


def test_bytes_that_a_killed_process_left_are_found(running: Execution, folder: Path) -> None:
    kept = artifacts.keep_artifact(execution=running, name="a", content_type="text/csv", chunks=[b"1"])
    shard = artifacts.path_of(kept.pk).parent
    old = shard / f"{shard.name}{str(uuid.uuid4())[2:]}"
    fresh = shard / f"{shard.name}{str(uuid.uuid4())[2:]}"
    for path in (old, fresh):
        path.write_bytes(b"lost")
    for path in (old, artifacts.path_of(kept.pk)):
        os.utime(path, (0, time.time() - 2 * artifacts.ORPHAN_AGE_S))
    moment = int(shard.name, 16) * 60 + 256 * 60 * (int(time.time()) // (256 * 60) + 1)
    with time_machine.travel(moment, tick=False):
        os.utime(fresh, (moment, moment))
        assert artifacts.drop_orphans() == 1
    assert sorted(path.name for path in shard.iterdir()) == sorted([str(kept.pk), fresh.name])
