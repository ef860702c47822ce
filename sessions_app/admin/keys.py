"""API keys in the admin: made, shown once, revoked."""

from __future__ import annotations

from typing import Any

import rest_framework_api_key.admin  # noqa: F401  # registers the package's own keys, which nobody here uses
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_variables
from rest_framework_api_key.models import APIKey as UnusedKey

from sessions_app.admin import columns
from sessions_app.admin.base import Page
from sessions_app.models import ApiKey

if admin.site.is_registered(UnusedKey):
    admin.site.unregister(UnusedKey)


@admin.register(ApiKey)
class ApiKeyAdmin(Page):
    """Every key."""

    list_display = ("name", "prefix", "owner", "state", "created", "last_used", "expiry_date")
    list_filter = ("revoked", "created", "expiry_date")
    list_select_related = ("owner",)
    search_fields = ("name", "prefix", "owner__username")
    autocomplete_fields = ("owner",)
    ordering = ("-created",)
    actions = ("revoke",)
    fields = ("name", "owner", "expiry_date", "revoked", "prefix", "created", "last_used_at")

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """Fix the owner of a key that exists, and everything about one that is revoked."""
        fixed: tuple[str, ...] = ("prefix", "created", "last_used_at")
        if obj is not None:
            fixed += ("owner",)
            if obj.revoked:
                fixed += ("name", "expiry_date", "revoked")
        return fixed

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        """Ask for no more than a new key needs."""
        return ("name", "owner", "expiry_date") if obj is None else tuple(self.fields or ())

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Propose oneself as the owner."""
        return {"owner": request.user.pk, **super().get_changeform_initial_data(request)}

    @admin.display(description="status")
    def state(self, api_key: ApiKey) -> SafeString:
        """Show whether it opens anything."""
        if api_key.revoked:
            return columns.badge("failed", "Revoked")
        if api_key.has_expired:
            return columns.badge("timed_out", "Expired")
        return columns.badge("active", "Usable")

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, api_key: ApiKey) -> SafeString | str:
        """Show when it was last used, to the minute."""
        return columns.relative(api_key.last_used_at) if api_key.last_used_at else "never"

    @sensitive_variables("raw_key")
    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Give a new key its secret, kept for this one answer."""
        if not change:
            raw_key = ApiKey.objects.assign_key(obj)
            request.sbx_raw_key = raw_key  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """Show the key: here and now, never again, and in no cookie, message or cache."""
        context = {
            **self.admin_site.each_context(request),
            "title": "The new API key",
            "opts": self.opts,
            "api_key": obj,
            "raw_key": request.sbx_raw_key,  # type: ignore[attr-defined]
            "media": self.media,
        }
        response = TemplateResponse(request, "admin/sessions_app/apikey/created.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may revoke keys."""
        return self.has_change_permission(request)

    @admin.action(description="Revoke the selected keys", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Shut keys out, for good."""
        revoked = 0
        for api_key in queryset.filter(revoked=False):
            api_key.revoked = True
            api_key.save(update_fields=["revoked"])
            self.log_change(request, api_key, f"Revoked at {timezone.now():%Y-%m-%d %H:%M:%S}.")
            revoked += 1
        self.message_user(request, f"{revoked} key{'s' * (revoked != 1)} revoked.", messages.SUCCESS)
