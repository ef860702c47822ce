"""Which libraries callers may name, in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString

from sessions_app.admin import columns
from sessions_app.admin.base import Page
from sessions_app.models import LibraryRule


@admin.register(LibraryRule)
class LibraryRuleAdmin(Page):
    """Every rule."""

    list_display = ("pattern", "lang", "shown_verdict", "note")
    list_filter = ("lang", "verdict")
    search_fields = ("pattern", "note")
    fieldsets = (
        (
            None,
            {
                "description": "What is denied stays denied. As soon as a language has a rule that allows something, "
                "nothing else of that language is allowed. The libraries of templates need no rule.",
                "fields": (("lang", "verdict"), "pattern", "note"),
            },
        ),
    )

    @admin.display(description="verdict", ordering="verdict")
    def shown_verdict(self, rule: LibraryRule) -> SafeString:
        """Show a refusal in the colour of one."""
        colour = "plain" if rule.verdict == LibraryRule.Verdict.ALLOW else "failed"
        return columns.badge(colour, rule.get_verdict_display())
