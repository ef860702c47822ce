"""Whatever is wrong with a request: a 4xx that names the field, and no row that was not there before."""

from __future__ import annotations

from typing import Any

import pytest

from sessions_app.limits import MAX_BODY_BYTES, MAX_CODE_BYTES
from sessions_app.models import Execution, IdempotencyRecord, Session, SessionEvent
from tests.sessions_app.api.conftest import Caller, errors
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

CODE = "print(1)"
LONE_SURROGATE = "\ud800"

# what is wrong: (what is sent, status, field that the answer names)
BAD_RUNS: dict[str, tuple[Any, int, str | None]] = {
    "no code": ({}, 400, "code"),
    "null for code": ({"code": None}, 400, "code"),
    "empty code": ({"code": ""}, 400, "code"),
    "blank code": ({"code": " \n\t"}, 400, "code"),
    "a number for code": ({"code": 1}, 400, "code"),
    "an object for code": ({"code": {"a": 1}}, 400, "code"),
    "NUL in code": ({"code": "print(1)\0"}, 400, "code"),
    "a lone surrogate in code": ({"code": LONE_SURROGATE}, 400, "code"),
    "code above its limit": ({"code": "#" * (MAX_CODE_BYTES + 1)}, 413, "code"),
    "code of ten megabytes": ({"code": "#" * 10_000_000}, 413, "code"),
    "a body above its limit": ({"code": "#" * MAX_BODY_BYTES}, 413, None),
    "NUL in standard input": ({"code": CODE, "stdin": "\0"}, 400, "stdin"),
    "a number for standard input": ({"code": CODE, "stdin": 5}, 400, "stdin"),
    "a negative time-out": ({"code": CODE, "timeout": -1}, 400, "timeout"),
    "no time at all": ({"code": CODE, "timeout": 0}, 400, "timeout"),
    "a word for a time-out": ({"code": CODE, "timeout": "soon"}, 400, "timeout"),
    "a truth for a time-out": ({"code": CODE, "timeout": True}, 400, "timeout"),
    "NaN spelled as text": ({"code": CODE, "timeout": "nan"}, 400, "timeout"),
    "infinity spelled as text": ({"code": CODE, "timeout": "inf"}, 400, "timeout"),
    "a time-out over the ceiling": ({"code": CODE, "timeout": 601}, 400, "timeout"),
    "a shell line for a library": ({"code": CODE, "libraries": ["numpy; rm -rf /"]}, 400, "libraries"),
    "an option for a library": ({"code": CODE, "libraries": ["--index-url=http://x"]}, 400, "libraries"),
    "NUL in a library": ({"code": CODE, "libraries": ["num\0py"]}, 400, "libraries"),
    "a very long library": ({"code": CODE, "libraries": ["a" * 300]}, 400, "libraries"),
    "a number for a library": ({"code": CODE, "libraries": [1]}, 400, "libraries"),
    "text for libraries": ({"code": CODE, "libraries": "numpy"}, 400, "libraries"),
    "too many libraries": ({"code": CODE, "libraries": ["a"] * 51}, 400, "libraries"),
    "a list for the environment": ({"code": CODE, "env": ["A=1"]}, 400, "env"),
    "a number in the environment": ({"code": CODE, "env": {"A": 1}}, 400, "env"),
    "no name in the environment": ({"code": CODE, "env": {"": "1"}}, 400, "env"),
    "an assignment for a name": ({"code": CODE, "env": {"A=B": "1"}}, 400, "env"),
    "NUL in the environment": ({"code": CODE, "env": {"A": "\0"}}, 400, "env"),
    "a lone surrogate in a name": ({"code": CODE, "env": {LONE_SURROGATE: "1"}}, 400, "env"),
    "a list for a body": ([1, 2], 400, None),
    "text for a body": ("code", 400, None),
}
BAD_EXECUTES = {
    **BAD_RUNS,
    "a context whose id is none": ({"code": CODE, "context": "a b"}, 400, "context"),
    "a word for wait": ({"code": CODE, "wait": "perhaps"}, 400, "wait"),
}
BAD_SESSIONS: dict[str, tuple[Any, int, str | None]] = {
    "an unknown language": ({"lang": "cobol"}, 422, "lang"),
    "a number for a language": ({"lang": 7}, 400, "lang"),
    "NUL in the language": ({"lang": "py\0"}, 400, "lang"),
    "a very long language": ({"lang": "p" * 100}, 400, "lang"),
    "a template of another language": ({"lang": "go", "template": "python"}, 400, "lang"),
    "a negative idle time": ({"idle_timeout": -1}, 400, "idle_timeout"),
    "an idle time over the ceiling": ({"idle_timeout": 3601}, 400, "idle_timeout"),
    "a lifetime over the ceiling": ({"max_lifetime": 10**6}, 400, "max_lifetime"),
    "a lifetime that no database holds": ({"max_lifetime": 10**40}, 400, "max_lifetime"),
    "an execution time over the ceiling": ({"execution_timeout": 601}, 400, "execution_timeout"),
    "a fraction for a lifetime": ({"max_lifetime": 1.5}, 400, "max_lifetime"),
    "a word for keep_template": ({"keep_template": "perhaps"}, 400, "keep_template"),
    "text for metadata": ({"metadata": "x"}, 400, "metadata"),
    "nested metadata": ({"metadata": {"a": {"b": "c"}}}, 400, "metadata"),
    "NUL in metadata": ({"metadata": {"a": "\0"}}, 400, "metadata"),
    "NUL in a key of metadata": ({"metadata": {"\0": "a"}}, 400, "metadata"),
    "a lone surrogate in a key of metadata": ({"metadata": {LONE_SURROGATE: "a"}}, 400, "metadata"),
    "much metadata": ({"metadata": {"a": "b" * 20_000}}, 413, "metadata"),
    "a bad name in the environment": ({"env": {"1A": "x"}}, 400, "env"),
    "a list for a body": ([], 400, None),
}
MALFORMED: dict[str, bytes] = {
    "half an object": b'{"code": "print(',
    "no JSON": b"code=print(1)",
    "NaN": b'{"code": "x", "timeout": NaN}',
    "bytes that are no UTF-8": b'{"code": "\xff\xfe"}',
    "ten thousand brackets": b'{"code":' * 10_000,
    "a number of many digits": b'{"timeout": ' + b"9" * 5000 + b"}",
}


def rows() -> list[Any]:
    """Return all that a request might have left."""
    return [
        list(Session.objects.order_by("pk").values()),
        list(Execution.objects.order_by("pk").values()),
        list(IdempotencyRecord.objects.order_by("pk").values()),
        SessionEvent.objects.count(),
    ]


def check(answer: Any, status: int, field: str | None, before: list[Any]) -> None:
    """Check that an answer names the field, and that nothing has changed."""
    assert answer.status_code == status, answer.content
    assert {attr if attr is None else attr.split(".")[0] for _, attr in errors(answer)} <= {field, "non_field_errors"}
    assert rows() == before


@pytest.mark.parametrize("what", BAD_EXECUTES)
def test_a_bad_execution_names_its_field_and_leaves_nothing(api: Caller, session: Session, what: str) -> None:
    sent, status, field = BAD_EXECUTES[what]
    before = rows()
    check(api.post(f"/sessions/{session.pk}/execute", sent, Idempotency_Key="k"), status, field, before)


@pytest.mark.parametrize("what", BAD_RUNS)
def test_a_bad_snippet_names_its_field_and_leaves_nothing(api: Caller, proxy: FakeProxy, what: str) -> None:
    sent, status, field = BAD_RUNS[what]
    before = rows()
    check(api.post("/sandbox/execute", sent), status, field, before)
    assert not proxy.made


@pytest.mark.parametrize("what", BAD_SESSIONS)
def test_a_bad_session_names_its_field_and_leaves_nothing(api: Caller, proxy: FakeProxy, what: str) -> None:
    sent, status, field = BAD_SESSIONS[what]
    before = rows()
    check(api.post("/sessions", sent, Idempotency_Key="k"), status, field, before)
    assert not proxy.made


def test_an_unknown_template_is_named(api: Caller) -> None:
    answer = api.post("/sessions", {"template": "nowhere"})
    assert 400 <= answer.status_code < 500
    assert errors(answer)[0][1] == "template"


@pytest.mark.parametrize("change", [{"idle_timeout": 0}, {"max_lifetime": 10**9}, {"metadata": {"a": 1}}])
def test_a_bad_change_names_its_field_and_changes_nothing(api: Caller, session: Session, change: Any) -> None:
    before = rows()
    check(api("patch", f"/sessions/{session.pk}", change), 400, next(iter(change)), before)


def test_a_renewal_over_the_ceiling_names_its_field(api: Caller, session: Session) -> None:
    before = rows()
    check(api.post(f"/sessions/{session.pk}/renew", {"idle_timeout": 10**6}), 400, "idle_timeout", before)


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("path", ["/sessions", "/sandbox/execute"])
def test_malformed_json_is_the_callers_mistake(api: Caller, what: str, path: str) -> None:
    before = rows()
    answer = api("post", path, raw=MALFORMED[what])
    assert answer.status_code == 400, answer.content
    assert rows() == before


def test_json_under_a_forms_name_is_told_so(api: Caller) -> None:
    answer = api.client.post(
        "/sandbox/execute",
        data='{"code": "print(1)"}',
        content_type="application/x-www-form-urlencoded",
        headers=api.headers,
    )
    assert answer.status_code == 415
    assert "application/json" in answer.json()["errors"][0]["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/json; charset=bz2", "?"])
def test_a_body_of_another_type_is_refused(api: Caller, content_type: str) -> None:
    answer = api.client.generic("POST", "/sessions", b"{}", content_type=content_type, headers=api.headers)
    assert answer.status_code in (400, 415)
    assert errors(answer)


@pytest.mark.parametrize(
    "query",
    ["status=asleep", "page=x", "page=0", "page=-1", "page=%EF%BC%91", "page_size=0", "lang=%00", "metadata.a=%00"],
)
def test_a_bad_filter_names_itself(api: Caller, query: str) -> None:
    answer = api.get(f"/sessions?{query}")
    assert answer.status_code == 400
    assert str(errors(answer)[0][1]).split(".")[0] == query.split("=")[0].split(".")[0]


@pytest.mark.parametrize("page", [2, 10**8])
def test_a_page_that_is_not_there_is_not_found(api: Caller, page: int) -> None:
    assert api.get(f"/sessions?page={page}").status_code == 404


@pytest.mark.parametrize("key", ["k" * 256, "", "a\tb"])
def test_a_bad_idempotency_key_is_named(api: Caller, key: str) -> None:
    before = rows()
    check(api.post("/sessions", {}, Idempotency_Key=key), 400, "Idempotency-Key", before)


def test_a_form_above_the_limit_is_too_large(api: Caller) -> None:
    answer = api.client.post("/sandbox/execute", data={"code": "#" * (2 * MAX_BODY_BYTES)}, headers=api.headers)
    assert answer.status_code == 413
