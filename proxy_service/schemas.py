"""The bodies that callers send, and what must hold for them."""

from __future__ import annotations

import re
import uuid
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from proxy_service.backends.base import Limits, SandboxSpec
from proxy_service.errors import BodyTooLarge, InvalidRequest, UnsupportedLanguage, UnsupportedSpec
from proxy_service.libraries import check as check_libraries
from proxy_service.settings import Settings

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_ENV_BYTES = 128 * 1024
MAX_ENV_VARIABLES = 200
EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

B = TypeVar("B", bound=BaseModel)


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be Unicode text without lone surrogates") from None
    return value


def _environment(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MAX_ENV_VARIABLES:
        raise ValueError(f"may hold at most {MAX_ENV_VARIABLES} variables")
    for name in value:
        if not ENV_NAME.fullmatch(name):
            raise ValueError(f"has {name[:80]!r}, which is not the name of an environment variable")
    if sum(len(name) + len(text.encode()) for name, text in value.items()) > MAX_ENV_BYTES:
        raise ValueError(f"may hold at most {MAX_ENV_BYTES} bytes")
    return value


def _uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("must be a UUID") from None


Text = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=255)]
Environment = Annotated[dict[str, Text], AfterValidator(_environment)]
SessionId = Annotated[str, AfterValidator(_uuid)]
ContextId = Annotated[str, StringConstraints(pattern=f"^{EXECUTION_ID.pattern}$")]
ExecutionId = Annotated[str, StringConstraints(pattern=f"^{EXECUTION_ID.pattern}$")]


class Body(BaseModel):
    """Refuse silent conversions, such as a number from a text."""

    model_config = ConfigDict(strict=True, frozen=True)


class LimitsBody(Body):
    memory_bytes: int | None = Field(None, ge=16 * 1024 * 1024, le=2**50)
    cpus: float | None = Field(None, gt=0, le=1024, allow_inf_nan=False)
    pids: int | None = Field(None, ge=4, le=4_000_000)
    disk_bytes: int | None = Field(None, ge=1024 * 1024, le=2**50)


class SpecBody(Body):
    """What decides how a sandbox is made; alike for a session and for a template's pool."""

    lang: Annotated[Name, StringConstraints(max_length=64)] = "python"
    keep_template: bool = False
    template: Name | None = None
    image: Name | None = None
    limits: LimitsBody | None = None
    network: Literal["none", "host"] = "none"
    preload: tuple[Name, ...] = Field((), max_length=50, strict=False)
    libraries: tuple[Name, ...] = Field((), max_length=100, strict=False)

    def spec(self, settings: Settings, languages: list[str]) -> SandboxSpec:
        """Return what is asked for. Raises UnsupportedLanguage, UnsupportedSpec or LibraryError."""
        if self.image is None and self.lang not in languages:
            raise UnsupportedLanguage(self.lang, languages)
        if self.network == "host" and not settings.allow_host_network:
            raise UnsupportedSpec("This server gives no sandbox the host's network.", field="network")
        limits = settings.default_limits
        asked = self.limits or LimitsBody()
        return SandboxSpec(
            lang=self.lang,
            limits=Limits(
                memory_bytes=asked.memory_bytes or limits.memory_bytes,
                cpus=asked.cpus or limits.cpus,
                pids=asked.pids or limits.pids,
                disk_bytes=asked.disk_bytes or limits.disk_bytes,
            ),
            image=self.image,
            network=self.network,
            preload=self.preload,
            template=self.template,
            keep_template=self.keep_template,
            libraries=check_libraries(self.libraries, self.lang, self.network),
        )


class SessionBody(SpecBody):
    session_id: SessionId | None = None
    more_libraries: tuple[Name, ...] = Field((), max_length=100, strict=False)
    """Those that this session is to have beside its template's; pooled sandboxes have the template's already."""
    env: Environment = Field(default_factory=dict)


class ExecuteBody(Body):
    code: Text
    libraries: list[Name] = Field(default_factory=list, max_length=100)
    execution_id: ExecutionId | None = None
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    stdin: Text | None = None
    stdin_stream: bool = False
    env: Environment = Field(default_factory=dict)
    output_limit_bytes: int | None = Field(None, ge=1024)
    context: ContextId | None = None

    def check(self, settings: Settings) -> None:
        """Hold the request against the server's own bounds. Raises BodyTooLarge, InvalidRequest."""
        if len(self.code) > settings.max_code_bytes or len(self.code.encode()) > settings.max_code_bytes:
            raise BodyTooLarge(f"The code may have at most {settings.max_code_bytes} bytes.", field="code")
        if self.timeout is not None and self.timeout > settings.max_timeout_s:
            raise InvalidRequest(f"`timeout` may be at most {settings.max_timeout_s:g} s.", field="timeout")
        if self.output_limit_bytes is not None and self.output_limit_bytes > settings.max_output_limit_bytes:
            detail = f"`output_limit_bytes` may be at most {settings.max_output_limit_bytes}."
            raise InvalidRequest(detail, field="output_limit_bytes")


class ContextBody(Body):
    context_id: ContextId | None = None
    lang: Annotated[Name, StringConstraints(max_length=64)] = "python"


class PoolTarget(SpecBody):
    template: Name
    warm_pool_size: int = Field(ge=0, le=10_000)


class PoolBody(Body):
    templates: list[PoolTarget] = Field(max_length=1000)


def parse(model: type[B], content: bytes) -> B:
    """Read a JSON body. Raises InvalidRequest naming the first field that is wrong."""
    try:
        return model.model_validate_json(content or b"{}")
    except ValidationError as error:
        raise _explained(error.errors(include_url=False, include_context=False)[0]) from None


def parse_session_id(value: str) -> str:
    """Return a session's id from a path, in its one spelling. Raises InvalidRequest."""
    try:
        return _uuid(value)
    except ValueError:
        raise InvalidRequest("`session_id` must be a UUID.", field="session_id") from None


def parse_execution_id(value: str) -> str:
    """Return an execution's id from a path. Raises InvalidRequest."""
    if not EXECUTION_ID.fullmatch(value):
        raise InvalidRequest("`execution_id` must be of 1 to 64 letters, digits, `-` and `_`.", field="execution_id")
    return value


def parse_context_id(value: str) -> str:
    """Return a context's id from a path. Raises InvalidRequest."""
    if not EXECUTION_ID.fullmatch(value):
        raise InvalidRequest("`context_id` must be of 1 to 64 letters, digits, `-` and `_`.", field="context_id")
    return value


def _explained(error: ErrorDetails) -> InvalidRequest:
    if error["type"] == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {error['msg'].removeprefix('Invalid JSON: ')}.")
    if not error["loc"]:
        return InvalidRequest("The body must be a JSON object.")
    field = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return InvalidRequest(f"`{field}`: {message}.", field=field)
