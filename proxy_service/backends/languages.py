"""Languages: llm-sandbox's handlers say how each is run; bash joins them."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from llm_sandbox.const import SupportedLanguage
from llm_sandbox.language_handlers.factory import LanguageHandlerFactory

LANGUAGES = (*(str(language) for language in SupportedLanguage), "bash")

VERSION_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "bash": ("bash", "--version"),
    "cpp": ("g++", "--version"),
    "go": ("go", "version"),
    "java": ("java", "-version"),
    "javascript": ("node", "--version"),
    "python": ("python3", "--version"),
    "r": ("Rscript", "--version"),
    "ruby": ("ruby", "--version"),
}
_PROBE_TIMEOUT_S = 10.0
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def source_file(lang: str) -> str:
    """Return a fresh name for the file that holds an execution's code, relative to the workspace."""
    extension = "sh" if lang == "bash" else LanguageHandlerFactory.create_handler(lang).file_extension
    return f"main-{secrets.token_hex(4)}.{extension}"


def commands(lang: str, path: str) -> list[str]:
    """Return the shell lines that compile and run the file at `path`."""
    if lang == "bash":
        return [f"bash {path}"]
    return LanguageHandlerFactory.create_handler(lang).get_execution_commands(path)


def installed_languages(path: str) -> dict[str, str | None]:
    """Return which languages beside Python the programs on a search path can run, with their versions."""
    found = {}
    for lang, (name, *rest) in VERSION_COMMANDS.items():
        program = shutil.which(name, path=path)
        if program is not None and lang != "python":
            found[lang] = (program, *rest)
    with ThreadPoolExecutor(max_workers=4) as threads:
        return dict(zip(found, threads.map(_version, found.values()), strict=True))


def version_in(said: str) -> str | None:
    """Return the first thing in a text that looks like a version."""
    match = _VERSION.search(said)
    return match.group() if match else None


def _version(command: tuple[str, ...]) -> str | None:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return version_in(run.stdout + run.stderr)
