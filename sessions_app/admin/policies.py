"""Time-out policies in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from sessions_app.admin.base import Page
from sessions_app.models import TimeoutPolicy, UserPolicy


def pair(default: int, ceiling: int) -> str:
    """Return default and ceiling, in seconds, for a list."""
    return f"{default} / {ceiling} s"


@admin.register(TimeoutPolicy)
class TimeoutPolicyAdmin(Page):
    """Every policy."""

    list_display = ("name", "is_default", "idle", "lifetime", "execution", "grace_s", "templates", "users")
    list_filter = ("is_default",)
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "is_default")}),
        (
            "Idle time",
            {
                "description": "A session that runs nothing for this long ends. One that runs code is never idle.",
                "fields": (("idle_timeout_default_s", "idle_timeout_max_s"),),
            },
        ),
        (
            "Lifetime",
            {
                "description": "A session ends after this long, whatever it does.",
                "fields": (("max_lifetime_default_s", "max_lifetime_max_s"), "grace_s"),
            },
        ),
        (
            "Execution time",
            {
                "description": "An execution that takes longer is stopped; its session lives on.",
                "fields": (("execution_timeout_default_s", "execution_timeout_max_s"),),
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[TimeoutPolicy]:
        """Count the templates and users along."""
        policies: QuerySet[TimeoutPolicy] = super().get_queryset(request)
        return policies.annotate(
            template_count=Count("sandboxtemplate", distinct=True), user_count=Count("user_policies", distinct=True)
        )

    @admin.display(description="idle: default / longest", ordering="idle_timeout_default_s")
    def idle(self, policy: TimeoutPolicy) -> str:
        """Show default and ceiling."""
        return pair(policy.idle_timeout_default_s, policy.idle_timeout_max_s)

    @admin.display(description="lifetime", ordering="max_lifetime_default_s")
    def lifetime(self, policy: TimeoutPolicy) -> str:
        """Show default and ceiling."""
        return pair(policy.max_lifetime_default_s, policy.max_lifetime_max_s)

    @admin.display(description="execution", ordering="execution_timeout_default_s")
    def execution(self, policy: TimeoutPolicy) -> str:
        """Show default and ceiling."""
        return pair(policy.execution_timeout_default_s, policy.execution_timeout_max_s)

    @admin.display(description="templates")
    def templates(self, policy: TimeoutPolicy) -> int:
        """Show how many templates name it."""
        return int(getattr(policy, "template_count", 0))

    @admin.display(description="users")
    def users(self, policy: TimeoutPolicy) -> int:
        """Show how many users have it as their own."""
        return int(getattr(policy, "user_count", 0))


@admin.register(UserPolicy)
class UserPolicyAdmin(Page):
    """Who has a policy of their own, which goes before those of templates."""

    list_display = ("user", "policy")
    list_filter = ("policy",)
    list_select_related = ("user", "policy")
    search_fields = ("user__username__istartswith",)
    search_help_text = "Beginning of a user's name."
    autocomplete_fields = ("user",)
