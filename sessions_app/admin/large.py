"""Lists over tables that have grown for a year: dates, filters and searches that ask indexes alone."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Max, Min, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from sessions_app.admin.base import RecordPage
from sessions_app.models import SandboxTemplate

if TYPE_CHECKING:
    _QuerySet = QuerySet[Any, Any]
else:
    _QuerySet = QuerySet

# The users whose names begin with a search's text; more than these and the text says too little.
MAX_OWNERS = 100
# Days from the beginning of a period that always lead into the next one, and never past it.
LONGEST = {"year": 366, "month": 31, "day": 1}
ID_PREFIX = re.compile(r"[0-9a-f-]{4,36}")


class CalendarQuerySet(_QuerySet):
    """Tell periods from the first and the last instant: to look into every row for them takes a second."""

    def aggregate(self, *args: Any, **expressions: Any) -> dict[str, Any]:
        """Ask one thing at a time: a minimum or a maximum alone is read off the end of an index."""
        one = super().aggregate
        return {name: one(**{name: expression})[name] for name, expression in expressions.items()} | one(*args)

    def datetimes(self, field_name: str, kind: str, order: str = "ASC", tzinfo: tzinfo | None = None) -> Any:
        """Return every year, month or day from the first row's to the last one's, also those without a row."""
        ends = self.order_by().aggregate(first=Min(field_name), last=Max(field_name))
        if ends["first"] is None:
            return []
        zone = tzinfo or timezone.get_current_timezone()
        found = list(periods(ends["first"].astimezone(zone), ends["last"].astimezone(zone), kind))
        return found if order == "ASC" else found[::-1]


def periods(first: datetime, last: datetime, kind: str) -> Iterable[datetime]:
    """Yield the beginning of each year, month or day between two instants."""
    at = _begin(first, kind)
    while at <= last:
        yield at
        at = _begin(at + timedelta(days=LONGEST[kind]), kind)


def _begin(instant: datetime, kind: str) -> datetime:
    """Return the beginning of the period, by the clock on the wall."""
    start = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind in ("month", "year"):
        start = start.replace(day=1)
    return start.replace(month=1) if kind == "year" else start


def with_calendar(queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    """Return the queryset with the cheap `datetimes`."""
    queryset.__class__ = type("Calendar", (CalendarQuerySet, queryset.__class__), {})
    return queryset


def matching(term: str, *, ids: Iterable[str], owner: str, names: Iterable[str] = ()) -> Q:
    """Return what a search finds: rows by the beginning of an id or of their owner's name.

    A text that is neither is looked for at the beginning of `names`, which no index has.
    """
    User = get_user_model()  # noqa: N806  # it is a class
    term = term.strip()
    owners = list(User.objects.filter(username__istartswith=term).values_list("pk", flat=True)[:MAX_OWNERS])
    found = Q(**{f"{owner}__in": owners})
    if ID_PREFIX.fullmatch(term.lower()):
        digits = term.lower().replace("-", "")[:32]
        ends = (uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f")))
        for name in ids:
            found |= Q(**{f"{name}__gte": ends[0], f"{name}__lte": ends[1]})
    elif not owners:
        for name in names:
            found |= Q(**{f"{name}__startswith": term})
    return found


class LargePage(RecordPage):
    """A list over a table that grows."""

    id_fields: tuple[str, ...] = ("id",)
    owner_field = "owner"
    name_fields: tuple[str, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any, Any]:
        """Read rows with the cheap calendar."""
        return with_calendar(super().get_queryset(request))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any, Any], search_term: str
    ) -> tuple[QuerySet[Any, Any], bool]:
        """Find rows by the beginning of an id or of their owner's name."""
        if not search_term.strip():
            return queryset, False
        found = matching(search_term, ids=self.id_fields, owner=self.owner_field, names=self.name_fields)
        return queryset.filter(found), False


class LanguageFilter(admin.SimpleListFilter):
    """Narrow by the languages that templates have, not by a look into every row."""

    title = "language"
    parameter_name = "lang"
    field = "lang"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer each language."""
        languages = SandboxTemplate.objects.values_list("lang", flat=True).order_by("lang").distinct()
        return [(language, language) for language in languages]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        """Narrow."""
        return queryset.filter(**{self.field: self.value()}) if self.value() else queryset
