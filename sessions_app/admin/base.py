"""What the admin pages have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    _ModelAdmin = admin.ModelAdmin[Any]
    _TabularInline = admin.TabularInline[Any, Any]
else:
    _ModelAdmin = admin.ModelAdmin
    _TabularInline = admin.TabularInline


class Page(_ModelAdmin):
    """A model's pages, in Sandboxweb's dress."""

    # Counting a table that has grown for a year costs more than showing a page of it.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    class Media:
        css = {"all": ["sandboxweb/admin.css"]}


def user_of(request: HttpRequest) -> User:
    """Return who acts; the admin lets nobody in who is not logged in."""
    return cast("User", request.user)


class RecordPage(Page):
    """A model whose rows the services write and people read; they act on them by actions alone."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Leave the making of rows to the services."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Leave the changing of rows to the services."""
        return False

    def may_act(self, request: HttpRequest) -> bool:
        """Tell whether this user may use the actions: whoever may change the rows, in the words of permissions."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")


class RecordInline(_TabularInline):
    """Rows that belong to the page's, to be read."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Leave the making of rows to the services."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Leave the changing of rows to the services."""
        return False
