"""What a list of sessions can be narrowed by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django_filters  # type: ignore[import-untyped]
from django.db.models import F, Func, QuerySet, TextField, Value
from django.db.models.lookups import Exact
from rest_framework.exceptions import ValidationError

from sessions_app.models import Session

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.sql.compiler import SQLCompiler

METADATA_PREFIX = "metadata."
MAX_METADATA_FILTERS = 10


class MetadataText(Func):
    """The text under one key of `metadata`, whatever characters the key has."""

    output_field = TextField()
    template = "(%(expressions)s)"
    arg_joiner = " ->> "

    def __init__(self, key: str) -> None:
        """Remember the key."""
        super().__init__(F("metadata"), Value(key, output_field=TextField()))
        self.key = key

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        """Look the key up as a key: SQLite's own operator would take `$` and digits for something else."""
        sql = "(SELECT value FROM json_each(%(expressions)s) WHERE key = %%s)"
        column, parameters = compiler.compile(self.source_expressions[0])
        return sql % {"expressions": column}, [*parameters, self.key]


class SessionFilter(django_filters.FilterSet):  # type: ignore[misc]  # the package is not typed
    """`status` (several may be given), `lang`, `template` and `metadata.KEY`."""

    status = django_filters.MultipleChoiceFilter(choices=Session.Status.choices, distinct=False)
    lang = django_filters.CharFilter(max_length=32)
    template = django_filters.CharFilter(field_name="template__name", max_length=63)

    class Meta:
        model = Session
        fields: tuple[str, ...] = ()

    def filter_queryset(self, queryset: QuerySet[Session]) -> QuerySet[Session]:
        """Narrow by the declared filters and by every `metadata.KEY` of the query."""
        queryset = super().filter_queryset(queryset)
        wanted = [(name, text) for name, text in self.data.items() if name.startswith(METADATA_PREFIX)]
        if len(wanted) > MAX_METADATA_FILTERS:
            raise ValidationError({wanted[-1][0]: f"At most {MAX_METADATA_FILTERS} of these at once."})
        for name, text in wanted:
            if "\x00" in name + text:
                raise ValidationError({METADATA_PREFIX + "KEY": "NUL characters are not allowed."})
            queryset = queryset.filter(Exact(MetadataText(name.removeprefix(METADATA_PREFIX)), Value(text)))
        return queryset
