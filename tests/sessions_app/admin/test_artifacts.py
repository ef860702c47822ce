"""Artifacts in the admin: loaded by who may look at them, and removed with their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, TestCase

from sessions_app.models import Artifact, Session
from sessions_app.services import artifacts
from sessions_app.services.executions import complete_execution, submit_execution
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

BASE = "/admin/sessions_app/artifact"


@pytest.fixture
def artifact(settings: Any, tmp_path: Path, session: Session, proxy: FakeProxy) -> Artifact:
    """A picture that code left."""
    settings.ARTIFACTS_DIR = tmp_path
    proxy.files = {"p.png": b"png"}
    complete_execution(submit_execution(session=session, code="plot", actor="api"), actor="api")
    return Artifact.objects.get()


def test_the_bytes_are_for_those_who_may_look(admin: Client, viewer: Client, artifact: Artifact) -> None:
    assert f"{BASE}/{artifact.pk}/bytes" in admin.get(f"{BASE}/").content.decode()
    for client in (admin, viewer):
        answer = client.get(f"{BASE}/{artifact.pk}/bytes")
        assert (answer.status_code, answer["Content-Type"], answer["Content-Length"]) == (200, "image/png", "3")
        answer.close()
    assert Client().get(f"{BASE}/{artifact.pk}/bytes").status_code == 302
    stranger = Client()
    stranger.force_login(User.objects.create_user("staff", is_staff=True))
    assert stranger.get(f"{BASE}/{artifact.pk}/bytes").status_code == 403
    artifacts.path_of(artifact.pk).unlink()
    assert admin.get(f"{BASE}/{artifact.pk}/bytes").status_code == 404


def test_deleting_one_removes_its_bytes(admin: Client, artifact: Artifact) -> None:
    path = artifacts.path_of(artifact.pk)
    assert path.exists()
    with TestCase.captureOnCommitCallbacks(execute=True):
        chosen = {"action": "delete_selected", "_selected_action": str(artifact.pk), "post": "yes"}
        assert admin.post(f"{BASE}/", chosen).status_code == 302
    assert not Artifact.objects.exists()
    assert not path.exists()
