"""Templates in the admin: what sessions are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import forms
from django.contrib import admin
from django.utils.safestring import SafeString

from sessions_app.admin import columns
from sessions_app.admin.base import Page
from sessions_app.admin.fields import LinesField, MebibytesField, PairsField
from sessions_app.limits import MIB
from sessions_app.models import SandboxTemplate

if TYPE_CHECKING:
    _TemplateForm = forms.ModelForm[SandboxTemplate]
else:
    _TemplateForm = forms.ModelForm


class SandboxTemplateForm(_TemplateForm):
    """A template in people's units."""

    memory_bytes = MebibytesField(
        label="Memory (MiB)",
        min_value=16 * MIB,
        initial=512 * MIB,
        help_text="All that the sandbox's processes and its files in memory may use together.",
    )
    disk_bytes = MebibytesField(
        label="Disk (MiB)", min_value=1 * MIB, initial=256 * MIB, help_text="What the session's files may take."
    )
    preload = LinesField(
        label="Preloaded modules",
        help_text="One a line, such as numpy: imported before code runs, so that its own import costs nothing.",
    )
    libraries = LinesField(help_text="One a line, such as requests==2.32.3: in every sandbox before it is handed out.")
    env = PairsField(label="Environment", help_text="NAME=value, one a line: set for everything that runs.")

    class Meta:
        model = SandboxTemplate
        fields = "__all__"  # the admin edits all of it
        help_texts = {
            "name": "What callers say to get it; lower case, digits and dashes.",
            "lang": "A language of GET /languages.",
            "description": "For the people who choose between templates.",
            "cpus": "CPUs' worth of time; 0.5 is half of one.",
            "pids": "Processes and threads at once.",
            "network": "Without a network is the safe choice; libraries are installed from outside all the same.",
            "warm_pool_size": "Sandboxes kept ready before anyone asks: each costs memory and saves its start.",
        }


@admin.register(SandboxTemplate)
class SandboxTemplateAdmin(Page):
    """Every template."""

    form = SandboxTemplateForm
    list_display = (
        "name",
        "lang",
        "is_default",
        "is_enabled",
        "warm_pool_size",
        "memory",
        "cpus",
        "network_policy",
        "preloaded",
        "timeout_policy",
    )
    list_editable = ("warm_pool_size",)
    list_filter = ("lang", "is_enabled", "network", "timeout_policy")
    list_select_related = ("timeout_policy",)
    search_fields = ("name", "description", "image")
    prepopulated_fields = {"name": ("lang",)}
    fieldsets = (
        (None, {"fields": ("name", "lang", "description", ("is_default", "is_enabled"))}),
        ("Sandbox", {"fields": ("image", "network", "env", "libraries", "preload", "keep_template")}),
        ("Limits", {"fields": (("memory_bytes", "disk_bytes"), ("cpus", "pids"))}),
        ("Time and readiness", {"fields": ("timeout_policy", "warm_pool_size")}),
    )

    @admin.display(description="memory", ordering="memory_bytes")
    def memory(self, template: SandboxTemplate) -> str:
        """Show the memory limit."""
        return columns.size(template.memory_bytes)

    @admin.display(description="network", ordering="network")
    def network_policy(self, template: SandboxTemplate) -> SafeString:
        """Show an open network in the colour of a warning."""
        return columns.badge("timed_out" if template.network != "none" else "plain", template.network)

    @admin.display(description="preloaded")
    def preloaded(self, template: SandboxTemplate) -> str:
        """Show what is imported beforehand."""
        return ", ".join(template.preload) or columns.NOTHING
