"""Run the proxy: `python -m proxy_service serve | check | build-images`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

from pydantic import ValidationError

from proxy_service import images
from proxy_service.app import create_app
from proxy_service.backends import load_backend
from proxy_service.backends.engine import EngineName
from proxy_service.errors import BackendUnavailable
from proxy_service.logs import configure
from proxy_service.server import Server
from proxy_service.settings import Settings

log = logging.getLogger("proxy_service")


def read_settings() -> Settings:
    """Return the settings, or end with words that name the wrong ones."""
    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            name = ".".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"{name}: {problem['msg']}.\n")
        sys.stderr.write("PROXY_TOKEN may be any secret of 16 characters or more: openssl rand -hex 32\n")
        raise SystemExit(2) from None


def serve() -> int:
    """Serve until a signal ends it."""
    settings = read_settings()
    configure(settings.log_level)
    server = Server(create_app(settings), settings)
    server.run()
    return 0 if server.started else 1


def check() -> int:
    """Say whether the backend can make sandboxes, and how to mend it when it cannot."""
    settings = read_settings()
    configure("ERROR")

    async def probe() -> str:
        backend = load_backend(settings)
        # Nothing is taken over: a proxy that serves may hold the sandboxes of this instance.
        await backend.start()
        try:
            names = ", ".join(str(item["lang"]) for item in backend.languages())
        finally:
            await backend.close()
        return f"{backend.name}: ready; runs {names}"

    try:
        sys.stdout.write(asyncio.run(probe()) + "\n")
    except BackendUnavailable as error:
        sys.stderr.write(f"{settings.sandbox_backend}: {error.detail}\n{error.mend}\n".rstrip() + "\n")
        return 1
    return 0


def build_images(languages: list[str], engine: EngineName, *, force: bool, verbose: bool) -> int:
    """Build images and say which are there now."""
    # Building needs no token, and a fresh checkout has none yet.
    os.environ.setdefault("PROXY_TOKEN", "not-needed-to-build")

    def report(line: str) -> None:
        sys.stdout.write(line.rstrip() + "\n")
        sys.stdout.flush()

    try:
        names = images.build_images(
            read_settings(), languages, engine=engine, force=force, verbose=verbose, report=report
        )
    except (images.ImageBuildError, BackendUnavailable) as error:
        sys.stderr.write(f"{error}\n{getattr(error, 'mend', '')}".rstrip() + "\n")
        return 1
    report(f"ready: {', '.join(names)}")
    return 0


def main(argv: list[str]) -> int:
    """Run the command that `argv` names; `serve` when it names none."""
    parser = argparse.ArgumentParser(prog="python -m proxy_service", description="Sandboxweb's proxy server.")
    commands = parser.add_subparsers(dest="command", metavar="serve | check | build-images")
    commands.add_parser("serve", help="serve HTTP on PROXY_HOST:PROXY_PORT (default)")
    commands.add_parser("check", help="say whether sandboxes can be made here, and the mend when not")
    build = commands.add_parser("build-images", help="build the images that container engines need")
    build.add_argument("languages", nargs="*", metavar="LANG", help="what to build; default: python; `all` for all")
    build.add_argument("--backend", choices=["docker", "podman"], default="docker", help="whose images (docker)")
    build.add_argument("--force", action="store_true", help="build again what is there and current")
    build.add_argument("--verbose", action="store_true", help="show all that the commands of the recipes print")
    options = parser.parse_args(argv)
    if options.command == "build-images":
        return build_images(options.languages, options.backend, force=options.force, verbose=options.verbose)
    return check() if options.command == "check" else serve()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
