"""Languages: llm-sandbox's handlers say how each is run; bash joins them."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from llm_sandbox.const import SupportedLanguage
from llm_sandbox.language_handlers.base import AbstractLanguageHandler, LanguageConfig
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
COMPILERS: Mapping[str, str] = {"cpp": "g++ -std=c++17", "go": "go build"}
PROGRAM = "/tmp/program"  # noqa: S108
_PROBE_TIMEOUT_S = 10.0
_VERSION = re.compile(r"\d+(?:\.\d+)+")


class BashHandler(AbstractLanguageHandler):
    """Shell scripts, in the terms of llm-sandbox."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        super().__init__(logger)
        self.config = LanguageConfig(
            name="bash",
            file_extension="sh",
            execution_commands=["bash {file}"],
            package_manager=None,
            is_support_library_installation=False,
        )

    def get_import_patterns(self, module: str) -> str:
        """Return what sourcing a file looks like."""
        return rf"(?:^|\s)(?:source|\.)\s+{re.escape(module)}"

    @staticmethod
    def get_multiline_comment_patterns() -> str:
        """Return a pattern that nothing matches: there are none."""
        return r"(?!)"

    @staticmethod
    def get_inline_comment_patterns() -> str:
        """Return what a comment looks like."""
        return r"(?:^|\s)#.*$"


def language_handler(lang: str) -> AbstractLanguageHandler:
    """Return what llm-sandbox knows of a language. Raises LanguageNotSupportedError."""
    return BashHandler() if lang == "bash" else LanguageHandlerFactory.create_handler(lang)


def source_file(lang: str) -> str:
    """Return a fresh name for the file that holds an execution's code, relative to the workspace."""
    return f"main-{secrets.token_hex(4)}.{language_handler(lang).file_extension}"


def commands(lang: str, path: str) -> list[str]:
    """Return the shell lines that compile and run the file at `path`, one after another."""
    if lang in COMPILERS:
        # In two steps: the program has its own exit code and the standard input to itself, and who asks learns which
        # of the two failed.
        return [f"{COMPILERS[lang]} -o {PROGRAM} {path} </dev/null", PROGRAM]
    return list(language_handler(lang).get_execution_commands(path))


def installed_languages(path: str) -> list[str]:
    """Return which languages beside Python the programs on a search path can run."""
    commands = ((lang, command[0]) for lang, command in VERSION_COMMANDS.items() if lang != "python")
    return [lang for lang, program in commands if shutil.which(program, path=path)]


def versions(languages: Iterable[str], path: str) -> dict[str, str | None]:
    """Ask this machine's programs for their versions."""
    asked = {lang: (shutil.which(program, path=path) or program, *rest) for lang, (program, *rest) in _of(languages)}
    with ThreadPoolExecutor(max_workers=4) as threads:
        return dict(zip(asked, threads.map(_version, asked.values()), strict=True))


def _of(languages: Iterable[str]) -> Iterable[tuple[str, tuple[str, ...]]]:
    return ((lang, VERSION_COMMANDS[lang]) for lang in languages)


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
