"""Events in the admin: every change of state, newest first."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from sessions_app.admin import columns
from sessions_app.admin.large import LargePage
from sessions_app.admin.sessions import transition
from sessions_app.models import Execution, Session, SessionEvent


class ToStatusFilter(admin.SimpleListFilter):
    """Narrow by what came of it."""

    title = "new status"
    parameter_name = "to_status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer each status of sessions and executions once."""
        return list(dict([*Session.Status.choices, *Execution.Status.choices]).items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        """Narrow."""
        return queryset.filter(to_status=self.value()) if self.value() else queryset


@admin.register(SessionEvent)
class SessionEventAdmin(LargePage):
    """The diary of this server."""

    list_display = ("created_at", "change", "in_session", "of_execution", "actor", "user", "reason")
    list_filter = ("type", "actor", ToStatusFilter, "created_at")
    list_select_related = ("user",)
    search_fields = ("id",)
    search_help_text = "Beginning of the id of a session or of an execution, or of the name of who did it."
    id_fields = ("session_id", "execution_id")
    owner_field = "user"
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    fields = ("created_at", "type", "change", "actor", "user", "reason", "in_session", "of_execution", "shown_data")
    readonly_fields = ("change", "in_session", "of_execution", "shown_data")

    @admin.display(description="change", ordering="to_status")
    def change(self, event: SessionEvent) -> SafeString:
        """Show from which state to which."""
        return transition(event)

    @admin.display(description="session")
    def in_session(self, event: SessionEvent) -> SafeString | str:
        """Lead to the session."""
        return columns.link_to("session", event.session_id)

    @admin.display(description="execution")
    def of_execution(self, event: SessionEvent) -> SafeString | str:
        """Lead to the execution."""
        return columns.link_to("execution", event.execution_id)

    @admin.display(description="data")
    def shown_data(self, event: SessionEvent) -> SafeString:
        """Show what else was noted."""
        return columns.json_block(event.data)

    def has_delete_permission(self, request: HttpRequest, obj: SessionEvent | None = None) -> bool:
        """Keep a diary that nobody tears pages from."""
        return False
