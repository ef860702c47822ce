"""Queries compiled once, for the few that every request makes.

To turn a queryset into SQL takes Django three times as long as SQLite needs to answer it. What is compiled here is a
queryset like any other; only the work is done once in the life of a process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Expression, Field, Model, QuerySet, TextField
from django.db.models.query import get_related_populators
from django.db.models.sql import InsertQuery, UpdateQuery

# Its stubs are those of a later Django, where it takes one argument more.
populators: Callable[..., list[Any]] = get_related_populators

M = TypeVar("M", bound=Model)


class Parameter(Expression):
    """A place in a query for a value that comes later."""

    def __init__(self, name: str) -> None:
        """Name it."""
        super().__init__(output_field=TextField())
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Stand for itself among the parameters of the statement."""
        return "%s", [self]


@dataclass(frozen=True)
class Statement(Generic[M]):
    """SQL, and how to make a row of its answer."""

    sql: str
    parameters: tuple[Any, ...]
    converters: tuple[tuple[int, tuple[Any, ...], Any], ...]
    model: type[M]
    columns: slice
    names: list[str]
    related: list[Any]


class Prepared(Generic[M]):
    """The first row of a queryset in which `Parameter`s stand for what differs."""

    def __init__(self, queryset: Callable[[], QuerySet[M]], **fields: Callable[[], Field[Any, Any]]) -> None:
        """Keep what makes the queryset, and the field that each parameter is compared with."""
        self._queryset = queryset
        self._fields = fields
        self._statements: dict[str, Statement[M]] = {}
        self._lock = threading.Lock()

    def first(self, **values: Any) -> M | None:
        """Return the row for these values, or None."""
        connection = connections[DEFAULT_DB_ALIAS]
        statement = self._statements.get(connection.vendor) or self._prepare(connection)
        given = {
            name: field().get_db_prep_value(values[name], connection, prepared=False)
            for name, field in self._fields.items()
        }
        parameters = [given[value.name] if isinstance(value, Parameter) else value for value in statement.parameters]
        with connection.cursor() as cursor:
            cursor.execute(statement.sql, parameters)
            answer = cursor.fetchone()
        return None if answer is None else self._row(connection, statement, list(answer))

    def _row(self, connection: Any, statement: Statement[M], answer: list[Any]) -> M:
        for column, converters, expression in statement.converters:
            for convert in converters:
                answer[column] = convert(answer[column], expression, connection)
        row = statement.model.from_db(connection.alias, statement.names, answer[statement.columns])
        for related in statement.related:
            related.populate(answer, row)
        return row

    def _prepare(self, connection: Any) -> Statement[M]:
        with self._lock:
            compiler: Any = self._queryset().order_by()[:1].query.get_compiler(connection=connection)
            sql, parameters = compiler.as_sql()
            chosen = compiler.klass_info["select_fields"]
            columns = slice(chosen[0], chosen[-1] + 1)
            statement: Statement[M] = Statement(
                sql=sql,
                parameters=tuple(parameters),
                converters=tuple(
                    (column, tuple(converters), expression)
                    for column, (converters, expression) in compiler.get_converters(
                        [select[0] for select in compiler.select]
                    ).items()
                ),
                model=compiler.klass_info["model"],
                columns=columns,
                names=[select[0].target.attname for select in compiler.select[columns]],
                related=populators(compiler.klass_info, compiler.select, connection.alias),
            )
            self._statements[connection.vendor] = statement
        return statement


class Write(NamedTuple):
    """SQL, what stands in its places, and the fields that it sets."""

    sql: str
    places: tuple[Any, ...]
    columns: dict[str, Field[Any, Any]]


class PreparedUpdate(Generic[M]):
    """An UPDATE of the rows of a queryset in which `Parameter`s stand for what differs."""

    def __init__(self, queryset: Callable[[], QuerySet[M]], **fields: Callable[[], Field[Any, Any]]) -> None:
        """Keep what makes the queryset, and the field that each parameter is compared with."""
        self._queryset = queryset
        self._fields = fields
        self._statements: dict[tuple[str, ...], Write] = {}

    def __call__(self, values: Mapping[str, Any], **parameters: Any) -> int:
        """Set `values`, by field, in the rows for these parameters; return how many there were."""
        connection = connections[DEFAULT_DB_ALIAS]
        key = (connection.vendor, *values)
        sql, places, columns = self._statements.get(key) or self._prepare(connection, key)
        given = {
            name: field().get_db_prep_value(parameters[name], connection, prepared=False)
            for name, field in self._fields.items()
        }
        for name, value in values.items():
            given[_set(name)] = columns[name].get_db_prep_save(value, connection)
        with connection.cursor() as cursor:
            cursor.execute(sql, [given[place.name] if isinstance(place, Parameter) else place for place in places])
            return int(cursor.rowcount)

    def _prepare(
        self, connection: Any, key: tuple[str, ...]
    ) -> tuple[str, tuple[Any, ...], dict[str, Field[Any, Any]]]:
        queryset = self._queryset().order_by()
        query: Any = queryset.query.chain(UpdateQuery)
        query.add_update_values({name: Parameter(_set(name)) for name in key[1:]})
        sql, places = query.get_compiler(connection=connection).as_sql()
        columns: dict[str, Any] = {name: queryset.model._meta.get_field(name) for name in key[1:]}
        statement = self._statements[key] = Write(sql, places, columns)
        return statement


def _set(name: str) -> str:
    return f"set {name}"


_inserts: dict[tuple[str, type[Model]], tuple[str, list[Any]]] = {}


def insert(row: Model) -> None:
    """Insert a new row, without the signals of `save()`; a key that the database makes is not read back.

    Raises IntegrityError as `save(force_insert=True)` does.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    key = (connection.vendor, type(row))
    sql, fields = _inserts.get(key) or _prepare_insert(connection, key, row)
    values = [field.get_db_prep_save(field.pre_save(row, True), connection) for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
    row._state.adding, row._state.db = False, connection.alias


def _prepare_insert(connection: Any, key: tuple[str, type[Model]], row: Model) -> tuple[str, list[Any]]:
    meta = row._meta
    fields = [field for field in meta.local_concrete_fields if field is not meta.auto_field]
    query: Any = InsertQuery(type(row))
    query.insert_values(fields, [row], raw=False)
    ((sql, _),) = query.get_compiler(connection=connection).as_sql()
    _inserts[key] = sql, fields
    return _inserts[key]
