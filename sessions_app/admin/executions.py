"""Executions in the admin: what ran, and what came of it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.safestring import SafeString

from sessions_app.admin import columns
from sessions_app.admin.base import user_of
from sessions_app.admin.large import LanguageFilter, LargePage
from sessions_app.admin.results import shown_results
from sessions_app.exceptions import SandboxwebError
from sessions_app.models import Actor, Execution
from sessions_app.services.executions import cancel_execution

OUTPUT = (
    "shown_stdout",
    "shown_stderr",
    "truncated",
    "shown_exception",
    "shown_results",
    "shown_artifacts",
    "files_truncated",
)
LARGE = ("code", "stdout", "stderr", "stdin", "results", "artifacts", "env", "libraries", "exception")


class SessionLanguageFilter(LanguageFilter):
    """Narrow by the language of the session."""

    field = "session__lang"


@admin.register(Execution)
class ExecutionAdmin(LargePage):
    """Every execution of everybody."""

    list_display = ("what", "state", "owner", "exit_code", "took", "memory", "created", "in_session")
    list_filter = ("status", "truncated", SessionLanguageFilter, "created_at")
    list_select_related = ("session", "session__owner")
    search_fields = ("id",)
    id_fields = ("id", "session_id")
    owner_field = "session__owner"
    search_help_text = "Beginning of an execution's id, of its session's id or of its owner's name."
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    actions = ("cancel",)
    readonly_fields = (
        "in_session",
        "owner",
        "state",
        "shown_code",
        "shown_stdin",
        "shown_env",
        "shown_stdout",
        "shown_stderr",
        "shown_results",
        "shown_exception",
        "shown_artifacts",
        "shown_libraries",
        "took",
        "cpu",
        "memory",
    )
    fieldsets = (
        (None, {"fields": ("id", "in_session", "owner", "state", ("exit_code", "signal"), "error", "hint")}),
        (
            "Code",
            {
                "fields": (
                    *("shown_code", "shown_libraries", "shown_stdin", "shown_env"),
                    *("context", "context_restarted", "timeout_s", "output_limit_bytes"),
                )
            },
        ),
        ("Output", {"fields": OUTPUT}),
        ("Cost", {"fields": (("took", "cpu", "memory"),)}),
        ("Clocks", {"fields": (("created_at", "started_at", "finished_at"), "last_seq")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Execution]:
        """Read for a list only how the code begins: fifty rows must not cost megabytes."""
        rows: QuerySet[Execution] = super().get_queryset(request)
        match = request.resolver_match
        if match is not None and str(match.url_name).endswith("_changelist"):
            return rows.annotate(code_start=Left("code", 200)).defer(*LARGE)
        return rows

    @admin.display(description="code")
    def what(self, execution: Any) -> SafeString:
        """Show how the code begins."""
        return columns.first_line(execution.code_start, 36)

    @admin.display(description="status", ordering="status")
    def state(self, execution: Execution) -> SafeString:
        """Show the status in its colour."""
        return columns.badge(execution.status, execution.get_status_display())

    @admin.display(description="owner", ordering="session__owner__username")
    def owner(self, execution: Execution) -> str:
        """Show whose it is."""
        return str(execution.session.owner)

    @admin.display(description="took", ordering="duration_ms")
    def took(self, execution: Execution) -> str:
        """Show the duration."""
        return columns.milliseconds(execution.duration_ms)

    @admin.display(description="CPU", ordering="cpu_ms")
    def cpu(self, execution: Execution) -> str:
        """Show the CPU time."""
        return columns.milliseconds(execution.cpu_ms)

    @admin.display(description="peak memory", ordering="max_rss_bytes")
    def memory(self, execution: Execution) -> str:
        """Show the peak memory."""
        return columns.size(execution.max_rss_bytes)

    @admin.display(description="created", ordering="created_at")
    def created(self, execution: Execution) -> SafeString | str:
        """Show its age."""
        return columns.relative(execution.created_at)

    @admin.display(description="session")
    def in_session(self, execution: Execution) -> SafeString | str:
        """Lead to its session."""
        return columns.link_to("session", execution.session_id)

    @admin.display(description="code")
    def shown_code(self, execution: Execution) -> SafeString:
        """Show the code."""
        return columns.block(execution.code)

    @admin.display(description="standard input")
    def shown_stdin(self, execution: Execution) -> SafeString:
        """Show what it could read."""
        return columns.block(execution.stdin or "")

    @admin.display(description="environment")
    def shown_env(self, execution: Execution) -> SafeString:
        """Show the names alone: the values may be its user's secrets."""
        return columns.block("\n".join(f"{name}=…" for name in sorted(execution.env)))

    @admin.display(description="standard output")
    def shown_stdout(self, execution: Execution) -> SafeString:
        """Show what it printed."""
        return columns.block(execution.stdout)

    @admin.display(description="standard error")
    def shown_stderr(self, execution: Execution) -> SafeString:
        """Show what it complained of."""
        return columns.block(execution.stderr)

    @admin.display(description="results")
    def shown_results(self, execution: Execution) -> SafeString:
        """Show its rich results."""
        return shown_results(execution.results)

    @admin.display(description="exception")
    def shown_exception(self, execution: Execution) -> SafeString:
        """Show what its code raised and nothing caught."""
        raised = execution.exception or {}
        return columns.block("\n".join(raised.get("traceback", ())))

    @admin.display(description="artifacts")
    def shown_artifacts(self, execution: Execution) -> SafeString:
        """Show the files it left."""
        return columns.json_block(execution.artifacts)

    @admin.display(description="libraries")
    def shown_libraries(self, execution: Execution) -> str:
        """Show what it asked for."""
        return ", ".join(execution.libraries) or columns.NOTHING

    def has_delete_permission(self, request: HttpRequest, obj: Execution | None = None) -> bool:
        """Keep executions as long as their session."""
        return False

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may stop executions."""
        return self.may_act(request)

    @admin.action(description="Stop the selected executions", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Execution]) -> None:
        """Stop what still runs of the selection, as the API does, and say what came of each."""
        stopped = over = 0
        for execution in queryset.select_related("session"):
            if not execution.is_live:
                over += 1
                continue
            try:
                cancel_execution(execution=execution, actor=Actor.ADMIN, user=user_of(request))
            except SandboxwebError as error:
                self.message_user(request, f"{execution.pk} could not be stopped: {error.message}", messages.ERROR)
            else:
                stopped += 1
        if stopped:
            self.message_user(request, f"{stopped} execution{'s' * (stopped != 1)} stopped.", messages.SUCCESS)
        if over:
            were = "execution was" if over == 1 else "executions were"
            self.message_user(request, f"{over} {were} over already.", messages.INFO)
