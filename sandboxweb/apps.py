"""The admin site under its own name."""

from __future__ import annotations

from django.contrib.admin.apps import AdminConfig


class SandboxwebAdminConfig(AdminConfig):
    """Put Sandboxweb's admin site in the place of Django's."""

    default_site = "sandboxweb.admin_site.SandboxwebAdminSite"
