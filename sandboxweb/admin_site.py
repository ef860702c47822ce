"""The admin site: its name and its front page."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse


class SandboxwebAdminSite(AdminSite):
    """Sandboxweb's own admin site."""

    site_header = "Sandboxweb"
    site_title = "Sandboxweb"
    index_title = "Dashboard"
    site_url = "/"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """Show how things are, above the models; to those who may see sessions."""
        # Django makes the site before it has the models.
        from sessions_app.api.server import proxy_health
        from sessions_app.overview import overview

        numbers: dict[str, Any] = {}
        if request.user.has_perm("sessions_app.view_session"):
            numbers = {"overview": overview(), "proxy": proxy_health()}
        return super().index(request, {**numbers, **(extra_context or {})})
