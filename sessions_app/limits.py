"""The bounds of what a caller may send, and the checks that hold them; each raises with the field's name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from sessions_app.exceptions import InvalidInput, TooLarge

KIB = 1024
MIB = 1024 * KIB

MAX_CODE_BYTES = 1 * MIB
MAX_STDIN_BYTES = 1 * MIB
# Both, each character of theirs escaped to six, and the rest. What is not much larger is read all the same, so that the
# answer can name the field that is too long.
MAX_BODY_BYTES = 16 * MIB
MAX_METADATA_BYTES = 16 * KIB
MAX_ENV_BYTES = 64 * KIB
MAX_ENV_VARIABLES = 100
MAX_LIBRARIES = 50
MAX_LIBRARY_CHARS = 200
MAX_IDEMPOTENCY_KEY_CHARS = 255

# Executions of one session that may be live at once: one runs, the others wait.
MAX_LIVE_EXECUTIONS = 17

# What an answer has of each output stream, unless its caller asks for less; the middle of what is longer is cut out.
OUTPUT_LIMIT_BYTES = 2 * MIB
MIN_OUTPUT_LIMIT_BYTES = 256
# What a sandbox tells of each when more than an answer is made of it: it is followed as it runs, or kept as a whole.
WHOLE_OUTPUT_LIMIT_BYTES = 8 * MIB

IDEMPOTENCY_TTL_S = 24 * 3600

# A requirement's alphabet: name, extras, version bounds, npm scope. The proxy judges what it means.
LIBRARY = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._/-]*(\[[A-Za-z0-9._, -]+\])?( *[@~=!<>^,:]+ *[A-Za-z0-9.*+!_-]+)*")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_text(field: str, value: str, *, max_bytes: int) -> str:
    """Return text that every database and a sandbox can hold: UTF-8, no NUL, at most `max_bytes`."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput(field, "This is not valid Unicode text (a lone surrogate).") from None
    if size > max_bytes:
        raise TooLarge(field, f"This is {size} bytes long; at most {max_bytes} are allowed.")
    if "\x00" in value:
        raise InvalidInput(field, "NUL characters are not allowed.")
    return value


def check_code(code: str) -> str:
    """Return code that may be sent to a sandbox."""
    if not code.strip():
        raise InvalidInput("code", "There is no code to run.")
    return check_text("code", code, max_bytes=MAX_CODE_BYTES)


def check_stdin(stdin: str | None) -> str | None:
    """Return text for the standard input; None means that there is nothing to read."""
    return None if stdin is None else check_text("stdin", stdin, max_bytes=MAX_STDIN_BYTES)


def check_libraries(libraries: Sequence[str]) -> list[str]:
    """Return requirement strings that look like requirements; whether they exist is the proxy's to say."""
    if len(libraries) > MAX_LIBRARIES:
        raise InvalidInput("libraries", f"At most {MAX_LIBRARIES} libraries are allowed.")
    for library in libraries:
        if len(library) > MAX_LIBRARY_CHARS or not LIBRARY.fullmatch(library):
            shown = library[:MAX_LIBRARY_CHARS].encode("ascii", "backslashreplace").decode()
            raise InvalidInput("libraries", f"{shown!r} is not a library's name, with or without a version.")
    return list(libraries)


def check_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables that a process can be given."""
    if len(env) > MAX_ENV_VARIABLES:
        raise InvalidInput("env", f"At most {MAX_ENV_VARIABLES} variables are allowed.")
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name):
            raise InvalidInput("env", f"{_shown(name)} is not the name of an environment variable.")
        check_text("env", value, max_bytes=MAX_ENV_BYTES)
    _check_size("env", env, MAX_ENV_BYTES)
    return dict(env)


def check_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a flat mapping of text to text."""
    for key, value in metadata.items():
        if not key:
            raise InvalidInput("metadata", "A key must not be empty.")
        if not isinstance(value, str):
            raise InvalidInput("metadata", f"The value of {_shown(key)} is not text.")
        check_text("metadata", key, max_bytes=MAX_METADATA_BYTES)
        check_text("metadata", value, max_bytes=MAX_METADATA_BYTES)
    _check_size("metadata", metadata, MAX_METADATA_BYTES)
    return dict(metadata)


def check_seconds(field: str, value: float, *, ceiling: int) -> None:
    """Refuse a duration that is not positive or above the policy's ceiling (both in seconds)."""
    if not value > 0:
        raise InvalidInput(field, "A time-out must be more than 0 seconds.")
    if value > ceiling:
        raise InvalidInput(field, f"The policy allows at most {ceiling} seconds.")


def check_output_limit(limit_bytes: int | None) -> int:
    """Return how many bytes of each output stream an answer is to have; the most that it may have is the default."""
    if limit_bytes is None:
        return OUTPUT_LIMIT_BYTES
    if not MIN_OUTPUT_LIMIT_BYTES <= limit_bytes <= OUTPUT_LIMIT_BYTES:
        bounds = f"{MIN_OUTPUT_LIMIT_BYTES} to {OUTPUT_LIMIT_BYTES}"
        raise InvalidInput("output_limit_bytes", f"This must be from {bounds} bytes.")
    return limit_bytes


def _check_size(field: str, value: Mapping[str, str], max_bytes: int) -> None:
    size = len(json.dumps(dict(value), ensure_ascii=False).encode())
    if size > max_bytes:
        raise TooLarge(field, f"This is {size} bytes long; at most {max_bytes} are allowed.")


def _shown(text: str) -> str:
    return repr(text[:100].encode("ascii", "backslashreplace").decode())
