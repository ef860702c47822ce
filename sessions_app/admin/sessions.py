"""Sessions in the admin: found, read and ended."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from sessions_app.admin import columns
from sessions_app.admin.base import RecordInline, user_of
from sessions_app.admin.large import LanguageFilter, LargePage
from sessions_app.exceptions import SandboxwebError
from sessions_app.models import Actor, Execution, Session, SessionEvent
from sessions_app.services.sessions import terminate_session

SHOWN_EXECUTIONS = 25
SHOWN_EVENTS = 100


def newest_of(queryset: QuerySet[Any, Any], request: HttpRequest, count: int) -> QuerySet[Any, Any]:
    """Return the newest rows of the session whose page is asked for; an inline may not be sliced itself."""
    match = request.resolver_match
    session_id = match.kwargs.get("object_id") if match else None
    newest = queryset.filter(session_id=session_id).order_by("-created_at", "-pk").values("pk")[:count]
    return queryset.filter(pk__in=list(newest.values_list("pk", flat=True))).order_by("-created_at", "-pk")


class ExecutionInline(RecordInline):
    """The newest executions of a session."""

    model = Execution
    verbose_name_plural = f"executions (the newest {SHOWN_EXECUTIONS})"
    fields = ("what", "state", "exit_code", "took", "created_at", "output")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Execution]:
        """Read the beginnings of code and output, never the whole of them."""
        rows: QuerySet[Execution] = newest_of(super().get_queryset(request), request, SHOWN_EXECUTIONS)
        rows = rows.annotate(code_start=Left("code", 200), out_start=Left("stdout", 200), err_start=Left("stderr", 200))
        return rows.defer("code", "stdout", "stderr", "stdin", "results", "artifacts", "env")

    @admin.display(description="code")
    def what(self, execution: Any) -> SafeString | str:
        """Show how the code begins."""
        return columns.link_to("execution", execution.pk, columns.first_line(execution.code_start))

    @admin.display(description="status")
    def state(self, execution: Execution) -> SafeString:
        """Show the status in its colour."""
        return columns.badge(execution.status, execution.get_status_display())

    @admin.display(description="took")
    def took(self, execution: Execution) -> str:
        """Show the duration."""
        return columns.milliseconds(execution.duration_ms)

    @admin.display(description="output")
    def output(self, execution: Any) -> SafeString:
        """Show how the output begins."""
        return columns.first_line(execution.out_start or execution.err_start, 80)


class EventInline(RecordInline):
    """The newest events of a session."""

    model = SessionEvent
    verbose_name_plural = f"events (the newest {SHOWN_EVENTS})"
    fields = ("created_at", "change", "execution_link", "actor", "user", "reason")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[SessionEvent]:
        """Read the users along."""
        return newest_of(super().get_queryset(request), request, SHOWN_EVENTS).select_related("user")

    @admin.display(description="change")
    def change(self, event: SessionEvent) -> SafeString:
        """Show from which state to which."""
        return transition(event)

    @admin.display(description="execution")
    def execution_link(self, event: SessionEvent) -> SafeString | str:
        """Lead to the execution that changed, if it was one."""
        return columns.link_to("execution", event.execution_id)


def transition(event: SessionEvent) -> SafeString:
    """Return an event's change of state in colours, or what else it was."""
    if not event.to_status:
        return format_html("{}", event.get_type_display())
    after = columns.badge(event.to_status, event.to_status)
    if not event.from_status:
        return after
    return format_html("{} → {}", columns.badge(event.from_status, event.from_status), after)


@admin.register(Session)
class SessionAdmin(LargePage):
    """Every session of everybody."""

    list_display = ("short_id", "state", "ended_for", "owner", "template", "created", "ends", "running")
    list_display_links = ("short_id",)
    list_filter = ("status", "termination_reason", LanguageFilter, "is_one_shot", "created_at", "template")
    list_select_related = ("owner", "template")
    search_fields = ("id",)
    search_help_text = "Beginning of a session's id, of its owner's name or of its sandbox's name."
    name_fields = ("sandbox",)
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    actions = ("terminate",)
    inlines = (ExecutionInline, EventInline)
    change_form_template = "admin/sessions_app/session/change_form.html"
    readonly_fields = ("state", "ended_for", "shown_metadata", "shown_env", "shown_capabilities", "shown_error")
    fieldsets = (
        (None, {"fields": ("id", "owner", "template", "lang", "state", "ended_for", "shown_error", "is_one_shot")}),
        (
            "Clocks",
            {
                "fields": (
                    ("created_at", "started_at"),
                    ("last_activity_at", "expires_at"),
                    ("finished_at", "live_executions"),
                    ("idle_timeout_s", "max_lifetime_s", "execution_timeout_s", "grace_s"),
                )
            },
        ),
        ("Sandbox", {"fields": ("sandbox", "backend", "keep_template", "libraries", "shown_capabilities")}),
        ("Given by its user", {"fields": ("shown_metadata", "shown_env")}),
    )

    @admin.display(description="session")
    def short_id(self, session: Session) -> SafeString:
        """Show enough of the id to tell sessions apart."""
        return format_html('<code title="{}">{}</code>', session.pk, str(session.pk)[:8])

    @admin.display(description="status", ordering="status")
    def state(self, session: Session) -> SafeString:
        """Show the status in its colour."""
        return columns.badge(session.status, session.get_status_display())

    @admin.display(description="ended", ordering="termination_reason")
    def ended_for(self, session: Session) -> str:
        """Show why it ended."""
        return session.get_termination_reason_display() or columns.NOTHING

    @admin.display(description="created", ordering="created_at")
    def created(self, session: Session) -> SafeString | str:
        """Show its age."""
        return columns.relative(session.created_at)

    @admin.display(description="expires", ordering="expires_at")
    def ends(self, session: Session) -> SafeString | str:
        """Show when it ends by itself."""
        return columns.relative(session.expires_at) if session.is_live else columns.NOTHING

    @admin.display(description="runs", ordering="live_executions")
    def running(self, session: Session) -> str:
        """Show how many executions run or wait in it."""
        return str(session.live_executions or columns.NOTHING)

    @admin.display(description="metadata")
    def shown_metadata(self, session: Session) -> SafeString:
        """Show the metadata, indented."""
        return columns.json_block(session.metadata)

    @admin.display(description="environment")
    def shown_env(self, session: Session) -> SafeString:
        """Show the names alone: the values may be its user's secrets."""
        return columns.block("\n".join(f"{name}=…" for name in sorted(session.env)))

    @admin.display(description="capabilities")
    def shown_capabilities(self, session: Session) -> SafeString:
        """Show what the sandbox can do, indented."""
        return columns.json_block(session.capabilities)

    @admin.display(description="error")
    def shown_error(self, session: Session) -> SafeString:
        """Show what went wrong."""
        return columns.block(session.error)

    def has_delete_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        """Keep the row of a session that has a sandbox: without it nobody would know whose that is."""
        return super().has_delete_permission(request, obj) and obj is not None and not obj.is_live

    # --- Ending sessions ----------------------------------------------------------------------------------------------

    def has_terminate_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may end sessions."""
        return self.may_act(request)

    @admin.action(description="End the selected sessions", permissions=["terminate"])
    def terminate(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        """End what still lives of the selection, as the API does, and say what came of each."""
        ended, over = 0, 0
        for session in queryset.select_related("template"):
            if not session.is_live:
                over += 1
            elif self._end(request, session):
                ended += 1
        if ended:
            self.message_user(request, f"{ended} session{'s' * (ended != 1)} ended.", messages.SUCCESS)
        if over:
            were = "session was" if over == 1 else "sessions were"
            self.message_user(request, f"{over} {were} over already.", messages.INFO)

    def _end(self, request: HttpRequest, session: Session) -> bool:
        try:
            terminate_session(session=session, reason=Session.Reason.ADMIN, actor=Actor.ADMIN, user=user_of(request))
        except SandboxwebError as error:
            self.message_user(request, f"Session {session.pk} could not be ended: {error.message}", messages.ERROR)
            return False
        return True

    def get_urls(self) -> list[URLPattern]:
        """Add the address of the page's own button."""
        own = path(
            "<path:object_id>/terminate/",
            self.admin_site.admin_view(self.terminate_one),
            name="sessions_app_session_terminate",
        )
        return [own, *super().get_urls()]

    def terminate_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End the session of a page and come back to it."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        session = self.get_object(request, object_id)
        if session is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]
        if not self.has_terminate_permission(request):
            self.message_user(request, "You may not end sessions.", messages.ERROR)
        elif self._end(request, session):
            self.message_user(request, f"Session {session.pk} ended.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:sessions_app_session_change", args=[object_id]))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Tell the page whether this user may use its button."""
        may = {"may_terminate": self.has_terminate_permission(request)}
        return super().changeform_view(request, object_id, form_url, {**may, **(extra_context or {})})
