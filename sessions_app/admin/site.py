"""The admin site: its name and its front page."""

from __future__ import annotations

from django.contrib.admin import AdminSite


class SandboxwebAdminSite(AdminSite):
    """Sandboxweb's own admin site."""

    site_header = "Sandboxweb"
    site_title = "Sandboxweb"
    index_title = "Dashboard"
    site_url = "/"
