"""Images are made from their recipes, and kept while they are current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy_service import images
from proxy_service.backends.engine import connect
from proxy_service.backends.languages import LANGUAGES, commands, source_file, version_in
from proxy_service.errors import BackendUnavailable
from proxy_service.images import AGENT_LABEL, VERSION_LABEL, ImageBuildError, agent_digest, build_images, recipes
from proxy_service.settings import Settings
from tests.proxy_service.backends.conftest import make_settings


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


def test_every_language_has_a_recipe() -> None:
    assert set(LANGUAGES) <= set(recipes())
    assert "python-data" in recipes()


def test_every_language_is_run_by_a_command_that_names_its_file() -> None:
    for lang in LANGUAGES:
        name = source_file(lang)
        assert re.fullmatch(r"main-[0-9a-f]{8}\.\w+", name)
        assert any(name in line for line in commands(lang, name))


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Python 3.11.2", "3.11.2"),
        ("v18.20.4", "18.20.4"),
        ('openjdk version "17.0.15" 2025-04-15', "17.0.15"),
        ("go version go1.19.8 linux/amd64", "1.19.8"),
        ("no idea", None),
    ],
)
def test_versions_are_read_from_what_programs_say(said: str, version: str | None) -> None:
    assert version_in(said) == version


@pytest.mark.parametrize("recipe", ["base", *recipes()])
def test_recipes_leave_no_package_lists_and_end_with_the_agent(recipe: str) -> None:
    text = (images.RECIPES_DIR / recipe / "Dockerfile").read_text()
    assert text.startswith("# ")
    if "apt-get update" in text:
        assert "rm -rf /var/lib/apt/lists/*" in text
        assert "--no-install-recommends" in text
    if recipe != "base":
        assert text.endswith("LABEL sandboxweb.agent=${AGENT}\n")


def test_an_unknown_language_is_named_before_anything_is_done(own: Settings) -> None:
    with pytest.raises(ImageBuildError, match=r"cobol.*python"):
        build_images(own, ["cobol"])


def test_an_engine_that_is_away_is_said_with_the_mend(own: Settings) -> None:
    with pytest.raises(BackendUnavailable, match="does not answer") as caught:
        build_images(own.model_copy(update={"docker_host": "unix:///no/such.sock"}), ["python"])
    assert "DOCKER_HOST" in caught.value.mend


def test_a_debian_that_cannot_be_made_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.shutil, "which", lambda *_args, **_kwargs: None)
    with pytest.raises(ImageBuildError, match="apt-get install debootstrap"):
        images._bootstrap(tmp_path, print, verbose=False)


@pytest.mark.docker
def test_what_is_current_is_kept_and_says_its_version(own: Settings) -> None:
    said: list[str] = []
    build_images(own, ["python"], report=said.append)
    said.clear()
    assert build_images(own, ["python"], report=said.append) == ["sandboxweb-python"]
    assert said == ["sandboxweb-base: up to date", "sandboxweb-python: up to date"]
    client = connect("docker", own)
    labels = client.images.get("sandboxweb-python").labels
    client.close()
    assert labels[AGENT_LABEL] == agent_digest()
    assert labels[VERSION_LABEL].startswith("3.")


@pytest.mark.docker
def test_an_image_that_is_started_by_hand_opens_a_shell(own: Settings) -> None:
    client = connect("docker", own)
    commands = {recipe: client.images.get(f"sandboxweb-{recipe}").attrs["Config"]["Cmd"] for recipe in recipes()}
    client.close()
    assert commands == {recipe: ["bash"] for recipe in recipes()}


@pytest.mark.docker
def test_a_recipe_that_fails_says_why(own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (
        ("base", "ARG BASE\nFROM ${BASE}\n"),
        ("broken", "ARG BASE\nFROM ${BASE}\nRUN seq 50; exit 3\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(text)
    monkeypatch.setattr(images, "RECIPES_DIR", tmp_path)
    other = own.model_copy(update={"sandbox_image_prefix": "sandboxwebtest"})
    said: list[str] = []
    with pytest.raises(ImageBuildError, match=r"sandboxwebtest-broken was not built.*code: 3"):
        build_images(other, ["broken"], report=said.append)
    *steps, output = said
    assert "sandboxwebtest-broken: Step 3/5 : RUN seq 50; exit 3" in steps
    assert "\n48\n49\n50\n" in f"{output}\n"
    assert not any("50" in step.split() for step in steps)
    client = connect("docker", own)
    client.images.remove("sandboxwebtest-base", force=True)
    client.close()
