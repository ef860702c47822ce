"""A database that has grown, in a process of its own: `python -m tests.sessions_app.many_rows`.

Makes the database at `DATABASE_URL` anew, fills it with 100 000 ended and 1 000 live sessions, each with an execution,
an event, an artifact and an idempotency record of this day, and sweeps while nothing is due. Prints the plans of that
sweep's statements, as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import django
from django.core.management import call_command

ENDED, LIVE = 100_000, 1_000

NUMBERS = {
    "sqlite": "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {0}) SELECT i FROM n) AS n",
    "postgresql": "generate_series(1, {0}) AS n(i)",
}
IDS = {
    "sqlite": "lower(printf('{0}%031x', i))",
    "postgresql": "('{0}' || lpad(to_hex(i), 31, '0'))::uuid",
}
# An instant so many seconds from now.
INSTANT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now', ({0}) || ' seconds')",
    "postgresql": "now() + ({0}) * interval '1 second'",
}


def fill(first: str, count: int, *, live: bool) -> None:
    """Insert sessions whose ids begin with a digit, each with an execution and an event for both."""
    from django.db import connection

    vendor = connection.vendor
    numbers, key = NUMBERS[vendor].format(count), IDS[vendor].format(first)
    ago = INSTANT[vendor].format("-86400 - i")
    soon = INSTANT[vendor].format("3600 + i")
    session = {
        "id": key,
        "owner_id": "1",
        "template_id": "(SELECT id FROM sessions_app_sandboxtemplate WHERE name = 'python')",
        "lang": "'python'",
        "status": "'active'" if live else "'terminated'",
        "termination_reason": "''" if live else "'idle'",
        "backend": "'fake'",
        "idle_timeout_s": "86400",
        "max_lifetime_s": "864000",
        "execution_timeout_s": "30",
        "grace_s": "30",
        "created_at": ago,
        "started_at": ago,
        "last_activity_at": ago,
        "expires_at": soon if live else ago,
        "finished_at": "NULL" if live else ago,
    }
    execution = {
        "id": IDS[vendor].format("e" if live else "f"),
        "session_id": key,
        "status": "'succeeded'",
        "code": "'print(1)'",
        "timeout_s": "30",
        "created_at": ago,
        "started_at": ago,
        "finished_at": ago,
    }
    event = {
        "session_id": key,
        "type": "'session_state'",
        "from_status": "'active'",
        "to_status": "'terminated'",
        "actor": "'api'",
        "created_at": ago,
    }
    record = {
        "owner_id": "1",
        "key": f"'{first}' || i",
        "fingerprint": "''",
        "state": "'done'",
        "claimed_at": INSTANT[vendor].format("-i / 10"),
        "created_at": INSTANT[vendor].format("-i / 10"),
    }
    artifact = {
        "id": IDS[vendor].format("c" if live else "d"),
        "owner_id": "1",
        "session_id": key,
        "execution_id": execution["id"],
        "name": "'chart.png'",
        "content_type": "'image/png'",
        "size": "1",
        "created_at": ago,
        "expires_at": soon,
    }
    tables = {
        "session": session,
        "execution": execution,
        "sessionevent": event,
        "idempotencyrecord": record,
        "artifact": artifact,
    }
    with connection.cursor() as cursor:
        for table, values in tables.items():
            values = {**required(table), **values}
            names, chosen = ", ".join(values), ", ".join(values.values())
            # Nothing of it comes from outside.
            cursor.execute(f"INSERT INTO sessions_app_{table} ({names}) SELECT {chosen} FROM {numbers}")  # noqa: S608


def required(table: str) -> dict[str, str]:
    """Return an SQL value for each column that may not be null: what the model itself would write."""
    from django.apps import apps
    from django.db import connection

    values = {}
    for field in apps.get_model("sessions_app", table)._meta.local_concrete_fields:
        default = field.get_default()
        if field.null or field.primary_key or field.is_relation or default is None:
            continue
        if isinstance(default, list | dict):
            values[field.column] = f"'{json.dumps(default)}'"
        elif isinstance(default, bool) and connection.vendor == "postgresql":
            values[field.column] = str(default).lower()
        elif isinstance(default, bool | int | float):
            values[field.column] = str(default + 0)
        elif isinstance(default, str):
            values[field.column] = f"'{default}'"
    return values


def swept() -> list[tuple[str, Any]]:
    """Sweep once, and return the statements with their parameters: a plan may depend on what is bound, and when."""
    from django.db import connection

    from sessions_app.attempts import Reaper
    from sessions_app.reaper import sweep

    statements = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            statements.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        done = sweep(Reaper(workers=1))
    assert not done.failures, done.failures
    assert not any(done.counts.values()), done.counts
    return statements


def planned(statement: str, params: Any) -> str:
    """Return how the database would answer a statement."""
    from django.db import connection

    prefix = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        cursor.execute(f"{prefix} {statement}", params)
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def main() -> None:
    """Make the database, fill it, sweep and explain."""
    django.setup()
    from django.contrib.auth.models import User
    from django.db import connection

    from sessions_app.models import Session
    from sessions_app.overview import overview
    from sessions_app.proxy_client import ProxyClient, using
    from tests.sessions_app.fake_proxy import FakeProxy

    call_command("migrate", verbosity=0)
    User.objects.create_user("ada")
    proxy = FakeProxy()
    with using(ProxyClient("http://proxy.test", "token", transport=proxy.transport())):
        swept()
        before = swept()
        fill("a", ENDED, live=False)
        fill("b", LIVE, live=True)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        live = [str(pk) for pk in Session.objects.active().values_list("pk", flat=True)]
        proxy.sandboxes.update({pk: {} for pk in live})
        proxy.made.update({pk: {"created_at": 0} for pk in live})
        after = swept()
    now = overview()
    result: dict[str, Any] = {
        "rows": {"ended": Session.objects.ended().count(), "active": now.active, "overdue": now.overdue},
        "before": len(before),
        "after": len(after),
        "plans": [{"statement": statement, "plan": planned(statement, params)} for statement, params in after],
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
