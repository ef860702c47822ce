"""Libraries that a language's own package manager installs inside the sandbox, where that has a network.

They go into a directory of ours, beside what is there, and take its place only when all went well.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence

from proxy_service.backends.agent_sandbox import WORKDIR, AgentSandbox
from proxy_service.backends.base import NODE_MODULES_PATH, ExecRequest
from proxy_service.backends.languages import language_handler
from proxy_service.errors import LibraryError

_OWN = f"{WORKDIR}/.sandboxweb"
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    "go": {"GOPATH": f"{_OWN}/go", "GOFLAGS": "-mod=mod -modcacherw"},
    "javascript": {"NODE_PATH": f"{WORKDIR}/{NODE_MODULES_PATH}"},
    "r": {"R_LIBS_USER": f"{_OWN}/r"},
    "ruby": {"GEM_HOME": f"{_OWN}/gems"},
}
"""How a language finds what it was given; also set where it was given nothing."""
LANGUAGES = ("go", "r", "ruby")
_PLACES = {"r": "R_LIBS_USER", "ruby": "GEM_HOME"}
_URL = re.compile(r"[a-z+]+://\S+")
OUTPUT_BYTES = 64 * 1024
MAX_REASON_CHARS = 600


def commands(lang: str, libraries: Sequence[str]) -> str:
    """Return the shell lines that install libraries, by llm-sandbox's own commands."""
    handler = language_handler(lang)
    installs = [f"{handler.get_library_installation_command(library)} </dev/null" for library in libraries]
    if lang == "go":
        # It writes down what it got only when it got all of it.
        return "\n".join(["set -e", "[ -e go.mod ] || go mod init sandbox", *installs])
    if lang == "ruby":
        installs = [line.replace("gem install", "gem install --no-document") for line in installs]
    if lang == "r":
        # R ends with 0 whether it installed the package or not.
        loaded = (f"quit(status = as.integer(!requireNamespace('{name}', quietly = TRUE)))" for name in libraries)
        installs += [f'Rscript -e "{expression}"' for expression in loaded]
    variable = _PLACES[lang]
    place = ENVIRONMENTS[lang][variable]
    return "\n".join(
        [
            "set -e",
            f"new={place}.new",
            "trap 'rm -rf \"$new\"' EXIT",
            f'rm -rf "$new"; mkdir -p {_OWN}',
            f'if [ -d {place} ]; then cp -a {place} "$new"; else mkdir "$new"; fi',
            f'export {variable}="$new"',
            *installs,
            f'rm -rf {place}; mv "$new" {place}',
        ]
    )


async def install(sandbox: AgentSandbox, libraries: Sequence[str], *, timeout_s: float) -> None:
    """Install libraries inside. Raises LibraryError with the end of what the package manager said."""
    lang = sandbox.spec.lang
    request = ExecRequest(
        execution_id=f"libraries-{uuid.uuid4().hex}",
        code=b"",
        lang="bash",
        timeout_s=timeout_s,
        output_limit_bytes=OUTPUT_BYTES,
        env=ENVIRONMENTS[lang],
    )
    said, end = bytearray(), {}
    async for event in sandbox.run_shell(request, commands(lang, libraries), None):
        if event.type in ("stdout", "stderr"):
            said += event.body
        elif event.type == "exit":
            end = dict(event.data)
    if end.get("reason") == "timed_out":
        raise LibraryError(f"The package manager of {lang} took longer than {timeout_s:g} s.")
    if end.get("exit_code") != 0:
        text = " ".join(_URL.sub("the package registry", said.decode(errors="replace")).split())
        names = ", ".join(libraries)
        raise LibraryError(f"The package manager of {lang} could not install {names}: {text[-MAX_REASON_CHARS:]}")
