"""Every address of the app server."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("sessions_app.api.urls")),
    path(
        "login",
        LoginView.as_view(template_name="sandboxweb/login.html", redirect_authenticated_user=True),
        name="login",
    ),
    path("logout", LogoutView.as_view(), name="logout"),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
]

handler400 = "sessions_app.api.plain.bad_request"
handler403 = "sessions_app.api.plain.permission_denied"
handler404 = "sessions_app.api.plain.not_found"
handler500 = "sessions_app.api.plain.server_error"
