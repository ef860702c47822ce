"""Build the images that sandboxes on a container engine start from: `python -m proxy_service build-images`."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from textwrap import shorten

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from proxy_service.agent import AGENT_FILE
from proxy_service.backends.engine import EngineName, connect, ulimits
from proxy_service.backends.languages import VERSION_COMMANDS, version_in
from proxy_service.settings import Settings

RECIPES_DIR = Path(__file__).resolve().parent.parent / "deploy" / "images"
AGENT_LABEL = "sandboxweb.agent"
RECIPE_LABEL = "sandboxweb.recipe"
VERSION_LABEL = "sandboxweb.version"
BASE = "base"
DEBIAN = "debian:bookworm-slim"
DEBIAN_RELEASE = "bookworm"
STEP = re.compile(r"step \d+/\d+ ?:", re.IGNORECASE)
"""How Docker and Podman begin the line of a recipe's step."""
TOLD_OF_A_FAILURE = 20
"""Lines of output."""

Report = Callable[[str], None]


class ImageBuildError(Exception):
    """An image could not be built; the message says why and what can be done."""


def image_name(settings: Settings, recipe: str) -> str:
    """Return the name of the image that a recipe makes."""
    return f"{settings.sandbox_image_prefix}-{recipe}"


def agent_digest() -> str:
    """Return the digest that an image with the present agent bears as a label."""
    return hashlib.sha256(AGENT_FILE.read_bytes()).hexdigest()


def recipes() -> list[str]:
    """Return the names of the recipes that there are; `base` is made for all of them."""
    return sorted(path.parent.name for path in RECIPES_DIR.glob("*/Dockerfile") if path.parent.name != BASE)


def build_images(
    settings: Settings,
    languages: Iterable[str] = (),
    *,
    engine: EngineName = "docker",
    force: bool = False,
    verbose: bool = False,
    report: Report = print,
) -> list[str]:
    """Build the images of `languages` (Python's when empty, every recipe's for `all`) and return their names.

    What is there and current is kept, unless `force`. Told are the steps and how long each image took, and the last
    lines of one that failed; with `verbose` all that the commands in it print.

    Raises:
        BackendUnavailable: when the engine is away.
        ImageBuildError: when a recipe is unknown or fails.
    """
    wanted = list(dict.fromkeys(languages)) or ["python"]
    if "all" in wanted:
        wanted = recipes()
    unknown = sorted(set(wanted) - set(recipes()) - {BASE})
    if unknown:
        raise ImageBuildError(f"No image recipe for {', '.join(unknown)}. There are: {', '.join(recipes())}, all.")
    client = connect(engine, settings, timeout_s=3600)
    try:
        builder = _Builder(client, settings, engine, force=force, verbose=verbose, report=report)
        debian = _debian(client, settings, report, verbose=verbose)
        base = builder.build(BASE, debian)
        return [builder.build(recipe, base) for recipe in wanted if recipe != BASE] or [base]
    finally:
        client.close()


class _Builder:
    def __init__(
        self,
        client: docker.DockerClient,
        settings: Settings,
        engine: EngineName,
        *,
        force: bool,
        verbose: bool,
        report: Report,
    ) -> None:
        self._client = client
        self._engine = engine
        self._settings = settings
        self._force = force
        self._verbose = verbose
        self._report = report

    def build(self, recipe: str, base: str) -> str:
        name = image_name(self._settings, recipe)
        dockerfile = (RECIPES_DIR / recipe / "Dockerfile").read_bytes()
        base_id = str(self._client.images.get(base).id)
        labels = {RECIPE_LABEL: hashlib.sha256(dockerfile + base_id.encode()).hexdigest()}
        arguments = {"BASE": base}
        if recipe != BASE:
            labels[AGENT_LABEL] = arguments["AGENT"] = agent_digest()
        if not self._force and self._has(name, labels, with_version=bool(self._asks_version(recipe))):
            self._report(f"{name}: up to date")
            return name
        self._report(f"{name}: building")
        began = time.monotonic()
        former = self._id(name)
        self._run(name, dockerfile, arguments, labels)
        if version := self._version(name, recipe):
            self._run(name, f"FROM {name}\n".encode(), {}, {VERSION_LABEL: version})
        if former is not None and former != self._id(name):
            # An image that a container still uses stays until it is the former one of a later time.
            with suppress(DockerException, requests.RequestException):
                self._client.images.remove(former)
        self._report(f"{name}: built in {time.monotonic() - began:.0f} s")
        return name

    def _id(self, name: str) -> str | None:
        try:
            return str(self._client.images.get(name).id)
        except ImageNotFound:
            return None

    def _version(self, name: str, recipe: str) -> str | None:
        """Ask the new image for the version of its language."""
        command = self._asks_version(recipe)
        if not command:
            return None
        try:
            said = self._client.containers.run(
                name,
                list(command),
                entrypoint=[],
                network_mode="none",
                remove=True,
                stderr=True,
                ulimits=ulimits(self._engine),
            )
        except (DockerException, requests.RequestException) as error:
            raise ImageBuildError(f"{name} was built, but cannot run {' '.join(command)}: {error}") from error
        return version_in(said.decode(errors="replace"))

    @staticmethod
    def _asks_version(recipe: str) -> tuple[str, ...]:
        """Return the command that tells the version of a recipe's language; empty when there is none."""
        return tuple(VERSION_COMMANDS.get(recipe.split("-")[0], ()))

    def _has(self, name: str, labels: dict[str, str], *, with_version: bool) -> bool:
        try:
            found = self._client.images.get(name).labels
        except ImageNotFound:
            return False
        return all(found.get(key) == value for key, value in labels.items()) and (
            VERSION_LABEL in found or not with_version
        )

    def _run(self, name: str, dockerfile: bytes, arguments: dict[str, str], labels: dict[str, str]) -> None:
        output: deque[str] = deque(maxlen=TOLD_OF_A_FAILURE)
        # Packages come over the network of the host: an engine may have been set up without any of its own.
        try:
            lines = self._client.api.build(
                fileobj=_context(dockerfile),
                custom_context=True,
                tag=f"{name}:latest",
                buildargs=arguments,
                labels=labels,
                network_mode="host",
                nocache=self._force,
                rm=True,
                forcerm=True,
                decode=True,
            )
            for line in lines:
                for text in filter(None, map(str.strip, line.get("stream", "").splitlines())):
                    output.append(text)
                    if self._verbose or STEP.match(text):
                        self._report(f"{name}: {text if self._verbose else shorten(text, 110, placeholder=' …')}")
                if error := line.get("error"):
                    if not self._verbose:
                        self._report("\n".join(output))
                    raise ImageBuildError(f"{name} was not built: {error.strip()}")
        except (DockerException, requests.RequestException) as error:
            raise ImageBuildError(f"{name} was not built: {error}") from error


def _context(dockerfile: bytes) -> io.BytesIO:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in (("Dockerfile", dockerfile), ("agent.py", AGENT_FILE.read_bytes())):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    context.seek(0)
    return context


def _debian(client: docker.DockerClient, settings: Settings, report: Report, *, verbose: bool) -> str:
    """Return an image of Debian: one that is here, or the registry's, or one bootstrapped from packages."""
    bootstrapped = image_name(settings, "debian")
    for name in (DEBIAN, bootstrapped):
        try:
            client.images.get(name)
            return name
        except ImageNotFound:
            continue
    repository, tag = DEBIAN.split(":")
    try:
        report(f"{DEBIAN}: pulling")
        client.images.pull(repository, tag=tag)
        return DEBIAN
    except (DockerException, requests.RequestException) as error:
        report(f"{DEBIAN}: no registry gave it ({_first_line(error)}); bootstrapping it from packages")
    archive = _bootstrap(settings.data_dir.absolute() / "images", report, verbose=verbose)
    try:
        client.api.import_image_from_file(str(archive), repository=bootstrapped, tag="latest")
        client.images.get(bootstrapped)
    except (DockerException, requests.RequestException) as error:
        raise ImageBuildError(f"The bootstrapped Debian could not be imported: {error}") from error
    return bootstrapped


def _bootstrap(cache_dir: Path, report: Report, *, verbose: bool) -> Path:
    """Return a tar file of a minimal Debian, made by debootstrap and kept for the next time."""
    archive = cache_dir / f"{DEBIAN_RELEASE}.tar"
    if archive.exists():
        report(f"{archive}: kept from an earlier time")
        return archive
    debootstrap = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if debootstrap is None or os.geteuid() != 0:
        raise ImageBuildError(
            f"No registry gives {DEBIAN}, and making it from packages needs debootstrap and root: "
            "run `sudo apt-get install debootstrap` and this command as root, "
            f"or load an image named {DEBIAN} into the engine yourself."
        )
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir) as root:
        _run_debootstrap(debootstrap, root, report, verbose=verbose)
        partial = archive.with_suffix(".partial")
        with tarfile.open(partial, "w") as tar:
            tar.add(root, arcname=".", filter=_slim)
        partial.replace(archive)
    return archive


def _run_debootstrap(debootstrap: str, root: str, report: Report, *, verbose: bool) -> None:
    command = [debootstrap, "--variant=minbase", DEBIAN_RELEASE, root]
    told = ("I: Retrieving Packages", "I: Base system", "E:", "W:")
    report("debootstrap: about 80 packages are fetched and unpacked, which takes a minute or so")
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # noqa: S101
        for line in process.stdout:
            last = line.strip() or last
            if verbose or last.startswith(told):
                report(f"debootstrap: {last}")
    if process.returncode != 0:
        raise ImageBuildError(f"debootstrap failed: {last}")


def _slim(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what an image has no use for: caches, package lists, devices."""
    unwanted = ("./var/cache/apt/", "./var/lib/apt/lists/", "./usr/share/doc/", "./usr/share/man/", "./dev/", "./proc/")
    return None if member.name.startswith(unwanted) or member.isdev() else member


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
