"""What this server keeps for itself, in the admin: idempotency records and the reaper's last sweep."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from sessions_app.admin import columns
from sessions_app.admin.base import RecordPage
from sessions_app.models import IdempotencyRecord, ReaperSweep


@admin.register(IdempotencyRecord)
class IdempotencyRecordAdmin(RecordPage):
    """First answers, kept for their repetition."""

    list_display = ("key", "owner", "status", "response_status", "created_at", "of_session", "of_execution")
    list_filter = ("state", "response_status", "created_at")
    list_select_related = ("owner",)
    search_fields = ("=key", "owner__username__istartswith")
    search_help_text = "A whole key, or the beginning of its owner's name."
    ordering = ("-created_at",)
    fields = (
        "key",
        "owner",
        "status",
        "fingerprint",
        ("created_at", "claimed_at"),
        "response_status",
        "shown_body",
        "of_session",
        "of_execution",
    )
    readonly_fields = ("status", "shown_body", "of_session", "of_execution")

    @admin.display(description="status", ordering="state")
    def status(self, record: IdempotencyRecord) -> SafeString:
        """Show whether the answer stands."""
        return columns.badge(record.state, record.get_state_display())

    @admin.display(description="answer")
    def shown_body(self, record: IdempotencyRecord) -> SafeString:
        """Show the answer, indented."""
        return columns.json_block(record.response_body)

    @admin.display(description="session")
    def of_session(self, record: IdempotencyRecord) -> SafeString | str:
        """Lead to the session."""
        return columns.link_to("session", record.session_id)

    @admin.display(description="execution")
    def of_execution(self, record: IdempotencyRecord) -> SafeString | str:
        """Lead to the execution."""
        return columns.link_to("execution", record.execution_id)


@admin.register(ReaperSweep)
class ReaperSweepAdmin(RecordPage):
    """The one row of the last sweep."""

    list_display = ("started_at", "finished_at", "host", "total_sweeps", "done", "failed")
    fields = ("started_at", "finished_at", "host", "total_sweeps", "shown_counts", "shown_failures", "shown_totals")
    readonly_fields = ("shown_counts", "shown_failures", "shown_totals")

    @admin.display(description="done")
    def done(self, sweep: ReaperSweep) -> str:
        """Show what each step handled."""
        return ", ".join(f"{step}: {count}" for step, count in sweep.counts.items() if count) or "nothing to do"

    @admin.display(description="failed")
    def failed(self, sweep: ReaperSweep) -> str:
        """Show which steps failed."""
        return ", ".join(sweep.failures) or columns.NOTHING

    @admin.display(description="done")
    def shown_counts(self, sweep: ReaperSweep) -> SafeString:
        """Show what each step handled."""
        return columns.json_block(sweep.counts)

    @admin.display(description="failed")
    def shown_failures(self, sweep: ReaperSweep) -> SafeString:
        """Show what each step that failed said."""
        return columns.json_block(sweep.failures)

    @admin.display(description="done since the first sweep")
    def shown_totals(self, sweep: ReaperSweep) -> SafeString:
        """Show what each step has handled altogether."""
        return columns.json_block(sweep.totals)

    def has_delete_permission(self, request: HttpRequest, obj: ReaperSweep | None = None) -> bool:
        """Keep it: the next sweep writes over it."""
        return False
