"""Artifacts over HTTP: the owner's alone, and never a page of this server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sessions_app.models import Artifact, Session
from sessions_app.services import artifacts
from tests.sessions_app.api.conftest import Caller
from tests.sessions_app.fake_proxy import FakeProxy


@pytest.fixture(autouse=True)
def _folder(settings: Any, tmp_path: Path) -> None:
    settings.ARTIFACTS_DIR = tmp_path


def test_what_an_execution_left_is_listed_and_loaded(api: Caller, session: Session, proxy: FakeProxy) -> None:
    proxy.files = {"a b.html": b"<script>alert(1)</script>", "p.png": b"png"}
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "plot"}).json()
    assert [item["name"] for item in answer["artifacts"]] == ["a b.html", "p.png"]
    assert [item["path"] for item in answer["files"]] == ["a b.html", "p.png"]
    api("delete", f"/sessions/{session.pk}")
    listed = api.get(f"/sessions/{session.pk}/artifacts").json()
    assert {item["name"] for item in listed["results"]} == {"a b.html", "p.png"}
    page, picture = (api.get(item["url"]) for item in answer["artifacts"])
    assert page["Content-Disposition"] == "attachment; filename*=UTF-8''a%20b.html"
    assert page["Content-Security-Policy"].startswith("sandbox")
    assert page["X-Content-Type-Options"] == "nosniff"
    assert (picture["Content-Type"], picture["Content-Disposition"][:6]) == ("image/png", "inline")
    assert picture["Content-Length"] == "3"
    for answer in (page, picture):
        answer.close()


def test_artifacts_are_the_owners_alone(api: Caller, stranger: Caller, session: Session, proxy: FakeProxy) -> None:
    proxy.files = {"p.png": b"png"}
    url = api.post(f"/sessions/{session.pk}/execute", {"code": "plot"}).json()["artifacts"][0]["url"]
    assert stranger.get(url).status_code == 404
    assert stranger.get(f"/sessions/{session.pk}/artifacts").status_code == 404
    assert api.get("/artifacts/nonsense").status_code == 404


def test_bytes_that_are_gone_are_a_404(api: Caller, session: Session, proxy: FakeProxy) -> None:
    proxy.files = {"p.png": b"png"}
    url = api.post(f"/sessions/{session.pk}/execute", {"code": "plot"}).json()["artifacts"][0]["url"]
    artifacts.path_of(Artifact.objects.get().pk).unlink()
    assert api.get(url).status_code == 404
