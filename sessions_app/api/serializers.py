"""What callers send. The services hold the rules; these say the shape, and make the forms and the documentation."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from sessions_app import limits
from sessions_app.api.fields import LinesField, MapField, SecondsField, TextField

LONGEST_NAME = 63
LONGEST_SECONDS = 10 * 365 * 24 * 3600

CODE_STYLE = {"base_template": "textarea.html", "rows": 14, "placeholder": "print(1 + 1)"}
INPUT_STYLE = {"base_template": "textarea.html", "rows": 3}


def seconds(label: str, help_text: str) -> serializers.IntegerField:
    """Return a field for a duration of whole seconds; its ceiling is the policy's to say."""
    return serializers.IntegerField(
        label=label, required=False, allow_null=True, min_value=1, max_value=LONGEST_SECONDS, help_text=help_text
    )


class Request(serializers.Serializer[Any]):
    """A request's body: what it leaves out or calls null is left to the service's defaults."""


def libraries(help_text: str) -> LinesField:
    """Return a field for requirements."""
    return LinesField(
        child=TextField(max_length=limits.MAX_LIBRARY_CHARS),
        required=False,
        max_length=limits.MAX_LIBRARIES,
        help_text=help_text,
    )


class CreateSession(Request):
    """A new session."""

    lang = TextField(
        label="Language",
        required=False,
        allow_null=True,
        max_length=32,
        help_text="A language of `GET /languages`; `python` if left out.",
    )
    template = TextField(
        required=False,
        allow_null=True,
        max_length=LONGEST_NAME,
        help_text="A template of `GET /templates`; the language's default if left out.",
    )
    keep_template = serializers.BooleanField(
        required=False, default=False, help_text="Leave the image in place when the sandbox ends."
    )
    idle_timeout = seconds("Idle time-out", "Seconds without an execution after which the session ends.")
    max_lifetime = seconds("Lifetime", "Seconds after which the session ends whatever it does.")
    execution_timeout = seconds(
        "Execution time-out", "Seconds that an execution of this session may take, unless it says otherwise."
    )
    metadata = MapField(
        required=False, help_text="Your own names and texts; `GET /sessions?metadata.NAME=` finds them."
    )
    env = MapField(
        label="Environment", required=False, help_text="Environment variables of everything that runs in the session."
    )
    libraries = libraries("Packages that it has from its start, such as `numpy`, beside those of its template.")


class UpdateSession(Request):
    """Changes to a session."""

    idle_timeout = seconds("Idle time-out", "Seconds without an execution after which the session ends.")
    max_lifetime = seconds("Lifetime", "Seconds after its start when the session ends whatever it does.")
    execution_timeout = seconds(
        "Execution time-out", "Seconds that an execution of this session may take, unless it says otherwise."
    )
    metadata = MapField(required=False, help_text="Replaces what was there.")


class RenewSession(Request):
    """More time for a session."""

    idle_timeout = seconds("Idle time-out", "From now on, this many seconds without an execution.")


class Run(Request):
    """What an execution in a session and a one-shot have in common."""

    code = TextField(style=CODE_STYLE, help_text="What to run.")
    libraries = libraries("Packages to have at hand, such as `numpy` or `requests==2.32.3`.")
    timeout = SecondsField(
        label="Time-out",
        required=False,
        allow_null=True,
        help_text="Seconds after which the execution is stopped; the session's if left out.",
    )
    stdin = TextField(
        label="Standard input",
        required=False,
        allow_null=True,
        allow_blank=True,
        style=INPUT_STYLE,
        help_text="Text for its standard input; without it there is nothing to read.",
    )
    stdin_stream = serializers.BooleanField(
        label="Standard input goes on",
        required=False,
        default=False,
        help_text="More follows by `POST /executions/{id}/stdin` or a WebSocket, until that says `eof`.",
    )
    env = MapField(label="Environment", required=False, help_text="Environment variables for this execution.")
    output_limit_bytes = serializers.IntegerField(
        label="Output limit",
        required=False,
        allow_null=True,
        min_value=limits.MIN_OUTPUT_LIMIT_BYTES,
        max_value=limits.OUTPUT_LIMIT_BYTES,
        help_text="Bytes of each output stream that the answer may have; the middle of a longer one is left out.",
    )


class Execute(Run):
    """Code to run in a session."""

    context = TextField(  # type: ignore[assignment]  # a key of the body, an attribute of the class
        required=False,
        allow_null=True,
        max_length=100,
        help_text="A context of the session whose state the code shares; `default` is made on its first use.",
    )
    wait = serializers.BooleanField(
        label="Wait for its end",
        required=False,
        default=True,
        initial=True,
        help_text="Answer when it has ended; `false`: answer 202 at once.",
    )


class RunOnce(Run):
    """Code to run in a sandbox of its own."""

    lang = TextField(
        label="Language",
        required=False,
        allow_null=True,
        max_length=32,
        help_text="A language of `GET /languages`; `python` if left out.",
    )
    template = TextField(
        required=False, allow_null=True, max_length=LONGEST_NAME, help_text="A template of `GET /templates`."
    )


class SendStdin(Request):
    """More standard input for code that runs."""

    data = TextField(  # type: ignore[assignment]  # a key of the body, an attribute of the class
        required=False, allow_null=True, allow_blank=True, style=INPUT_STYLE, help_text="Text to read."
    )
    eof = serializers.BooleanField(
        required=False,
        default=False,
        label="End",
        help_text="Nothing more follows: the code reads the end of its input.",
    )


class CreateContext(Request):
    """A new context."""

    context_id = TextField(
        label="Id",
        required=False,
        allow_null=True,
        max_length=64,
        help_text="Letters, digits, `-` and `_`; one is made up if left out. One that is there is found again.",
    )
    lang = TextField(
        label="Language", required=False, allow_null=True, max_length=32, help_text="`python`, as yet the only one."
    )


class Nothing(Request):
    """A request whose address says it all."""
