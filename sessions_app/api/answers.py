"""The shapes of answers, for the documentation alone; `bodies.py` builds them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from sessions_app.models import Actor, Execution, SandboxTemplate, Session, SessionEvent


class ErrorItem(serializers.Serializer[Any]):
    """One thing that is wrong."""

    code = serializers.CharField(help_text="A word for programs.")
    detail = serializers.CharField(help_text="A sentence for people.")
    attr = serializers.CharField(allow_null=True, help_text="The field that it is about, when it is about one.")


class ErrorAnswer(serializers.Serializer[Any]):
    """Every error has this shape."""

    type = serializers.ChoiceField(["validation_error", "client_error", "server_error"])
    errors = ErrorItem(many=True)  # type: ignore[assignment]  # a key of ours, an attribute of the class's


class GoneAnswer(ErrorAnswer):
    """A session that ended."""

    termination_reason = serializers.ChoiceField(Session.Reason.choices)


class SessionAnswer(serializers.Serializer[Any]):
    """A session."""

    session_id = serializers.UUIDField()
    status = serializers.ChoiceField(Session.Status.choices)
    lang = serializers.CharField()
    template = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True, help_text="When it ends if nothing happens in it.")
    capabilities = serializers.DictField(help_text="What its sandbox can do.")
    metadata = serializers.DictField(child=serializers.CharField())
    idle_timeout = serializers.IntegerField(help_text="Seconds.")
    max_lifetime = serializers.IntegerField(help_text="Seconds.")
    execution_timeout = serializers.IntegerField(help_text="Seconds.")
    keep_template = serializers.BooleanField()
    libraries = serializers.ListField(
        child=serializers.CharField(), help_text="Installed before its first execution, beside the template's."
    )
    backend = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    last_activity_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    termination_reason = serializers.ChoiceField(Session.Reason.choices, allow_null=True)
    error = serializers.CharField(allow_null=True, help_text="What went wrong, when something did.")


class SessionEventAnswer(serializers.Serializer[Any]):
    """Something that happened to a session."""

    type = serializers.ChoiceField(SessionEvent.Type.choices)
    from_status = serializers.CharField(allow_null=True)
    to_status = serializers.CharField(allow_null=True)
    reason = serializers.CharField(allow_null=True)
    actor = serializers.ChoiceField(Actor.choices, help_text="Where it came from.")
    execution_id = serializers.UUIDField(allow_null=True, help_text="The execution that it is about, if it is one.")
    data = serializers.DictField(help_text="What was changed; `expires_at` of a session that is `expiring`.")  # type: ignore[assignment]  # a key of ours
    created_at = serializers.DateTimeField()


class TerminatedAnswer(serializers.Serializer[Any]):
    """A session that is over."""

    session_id = serializers.UUIDField()
    status = serializers.ChoiceField(["terminated"])
    termination_reason = serializers.ChoiceField(Session.Reason.choices)


class RichAnswer(serializers.Serializer[Any]):
    """Something rich that code showed, in as many representations as there are."""

    text = serializers.CharField(required=False)
    html = serializers.CharField(required=False)
    markdown = serializers.CharField(required=False)
    svg = serializers.CharField(required=False)
    png = serializers.CharField(required=False, help_text="In base64, as `jpeg` and `pdf`.")
    jpeg = serializers.CharField(required=False)
    pdf = serializers.CharField(required=False)
    latex = serializers.CharField(required=False)
    json = serializers.JSONField(required=False)
    javascript = serializers.CharField(required=False)
    is_main_result = serializers.BooleanField(help_text="Whether it is the value of the last expression.")


class ExceptionAnswer(serializers.Serializer[Any]):
    """What code in a context raised and nothing caught, or what went wrong on this server's side."""

    name = serializers.CharField(help_text="The exception's class; `SandboxwebError` for this server's own errors.")
    value = serializers.CharField(help_text="What it says.")
    traceback = serializers.ListField(child=serializers.CharField(), help_text="Its lines.")


class ContextAnswer(serializers.Serializer[Any]):
    """An interpreter that keeps its state between executions."""

    context_id = serializers.CharField()
    lang = serializers.ChoiceField(["python"])
    state = serializers.ChoiceField(["starting", "idle", "busy", "ended"], help_text="One that ended starts on use.")
    executions = serializers.IntegerField(help_text="How many ran in it.")
    restarts = serializers.IntegerField(help_text="How often its state was lost or forgotten.")
    created_at = serializers.DateTimeField()


class ContextsAnswer(serializers.Serializer[Any]):
    """The contexts of a session."""

    contexts = ContextAnswer(many=True)


class InterruptedAnswer(serializers.Serializer[Any]):
    """What came of an interrupt."""

    context_id = serializers.CharField()
    interrupted = serializers.BooleanField(help_text="False when nothing ran in it.")


class DeletedContextAnswer(serializers.Serializer[Any]):
    """A context that is gone."""

    context_id = serializers.CharField()
    status = serializers.ChoiceField(["deleted"])


class KeptArtifact(serializers.Serializer[Any]):
    """Bytes that an execution left, and that are kept."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    path = serializers.CharField(help_text="Where it lay in the workspace; empty for what was no file there.")
    content_type = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes.")
    url = serializers.CharField(help_text="Where its bytes are.")


class ChangedFile(serializers.Serializer[Any]):
    """A file of the workspace that an execution made or changed."""

    path = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes.")
    mode = serializers.CharField()
    change = serializers.ChoiceField(["created", "modified"])
    encoded_path = serializers.CharField(
        required=False, help_text="The path for an address, where its bytes are no UTF-8."
    )


class ResultAnswer(serializers.Serializer[Any]):
    """What came of an execution. The user's failure is a result, not an error."""

    execution_id = serializers.UUIDField()
    session_id = serializers.UUIDField()
    status = serializers.ChoiceField(Execution.Status.choices)
    stdout = serializers.CharField()
    stderr = serializers.CharField()
    exit_code = serializers.IntegerField(allow_null=True)
    signal = serializers.IntegerField(allow_null=True, help_text="The signal that ended it, if one did.")
    phase = serializers.ChoiceField(
        ["compile", "run"],
        allow_null=True,
        help_text="How far it came: `compile` when its language refused the code (a compile or syntax error).",
    )
    duration_ms = serializers.FloatField(allow_null=True)
    cpu_ms = serializers.FloatField(allow_null=True)
    max_rss_bytes = serializers.IntegerField(allow_null=True)
    results = RichAnswer(many=True, help_text="What it showed in a context.")
    artifacts = KeptArtifact(
        many=True, help_text="Pictures, tables and documents that it left, and output that was too long; they are kept."
    )
    files = ChangedFile(many=True, help_text="Files of the workspace that it made or changed.")
    files_truncated = serializers.BooleanField(
        help_text="Whether there may be more: they are too many, or the workspace is too large to look through."
    )
    truncated = serializers.BooleanField(help_text="Whether the middle of its output was cut out.")
    hint = serializers.CharField(allow_null=True, help_text="What to do about a failure, where the facts say it.")
    error = ExceptionAnswer(allow_null=True)
    context_restarted = serializers.BooleanField(help_text="Whether its context lost its state, in it or before.")
    expires_at = serializers.DateTimeField(
        allow_null=True, help_text="When its session ends if nothing happens in it; null when that has ended."
    )
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class ExecutionAnswer(ResultAnswer):
    """An execution with what was asked for."""

    code = serializers.CharField()
    libraries = serializers.ListField(child=serializers.CharField())
    timeout = serializers.FloatField(help_text="Seconds.")
    output_limit_bytes = serializers.IntegerField(help_text="Bytes of each output stream that its answer may have.")
    context = serializers.CharField(allow_null=True)  # type: ignore[assignment]  # as above


class EventAnswer(serializers.Serializer[Any]):
    """Something that happened in an execution."""

    seq = serializers.IntegerField(help_text="Its number, from 1 on and without a gap.")
    type = serializers.ChoiceField(["queued", "started", "stdout", "stderr", "truncated", "result", "error", "exit"])
    data = serializers.JSONField()  # type: ignore[assignment]  # a key of ours, an attribute of the class's
    at = serializers.FloatField(allow_null=True, help_text="Seconds since 1970.")


class EventsAnswer(serializers.Serializer[Any]):
    """What happened so far."""

    events = EventAnswer(many=True)


class StdinAnswer(serializers.Serializer[Any]):
    """What became of standard input."""

    execution_id = serializers.UUIDField()
    unread_bytes = serializers.IntegerField()
    eof = serializers.BooleanField()


class LimitsAnswer(serializers.Serializer[Any]):
    """The limits of a sandbox."""

    memory_bytes = serializers.IntegerField()
    cpus = serializers.FloatField()
    pids = serializers.IntegerField(help_text="Processes.")
    disk_bytes = serializers.IntegerField()


class TemplateAnswer(serializers.Serializer[Any]):
    """A template."""

    name = serializers.SlugField()
    lang = serializers.CharField()
    description = serializers.CharField()
    is_default = serializers.BooleanField()
    limits = LimitsAnswer()
    network = serializers.ChoiceField(SandboxTemplate.Network.choices)
    libraries = serializers.ListField(child=serializers.CharField())
    preload = serializers.ListField(child=serializers.CharField())
    warm_pool_size = serializers.IntegerField()


class TemplatesAnswer(serializers.Serializer[Any]):
    """The templates that sessions can be made from."""

    templates = TemplateAnswer(many=True)


class LanguageAnswer(serializers.Serializer[Any]):
    """A language."""

    lang = serializers.CharField()
    version = serializers.CharField(required=False)


class LanguagesAnswer(serializers.Serializer[Any]):
    """The languages that this server can run now."""

    languages = LanguageAnswer(many=True)
    default = serializers.CharField()


class HealthPart(serializers.Serializer[Any]):
    """How one part is."""

    status = serializers.ChoiceField(["ok", "unavailable"])


class ProxyHealthPart(HealthPart):
    """How the proxy is, and what it told of itself; `detail` says what is wrong with one that is away."""

    version = serializers.CharField(required=False)
    backend = serializers.CharField(required=False)
    capabilities = serializers.DictField(required=False)
    pool = serializers.DictField(
        required=False, help_text="For each template how many sandboxes are ready, and wanted."
    )
    detail = serializers.CharField(required=False)


class HealthAnswer(serializers.Serializer[Any]):
    """How this server is: `degraded` when the proxy is away, `unavailable` when the database is."""

    status = serializers.ChoiceField(["ok", "degraded", "unavailable"])
    version = serializers.CharField()
    database = HealthPart()
    proxy = ProxyHealthPart()
