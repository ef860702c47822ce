"""The documentation says what the server does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from sessions_app.api import answers, bodies, docs
from sessions_app.models import Execution, SandboxTemplate, Session, SessionEvent
from tests.sessions_app.api.conftest import Caller

pytestmark = pytest.mark.django_db

METHODS = ("get", "post", "patch", "put", "delete")


@pytest.fixture
def schema(client: Client) -> Any:
    """The OpenAPI schema."""
    return client.get("/schema", headers={"Accept": "application/json"}).json()


def test_the_schema_is_openapi_3_1(schema: Any) -> None:
    assert schema["openapi"].startswith("3.1")
    assert set(schema["components"]["securitySchemes"]) >= {"ApiKey", "ApiKeyHeader"}


def test_every_request_is_described_with_its_errors_and_an_example(schema: Any) -> None:
    for path, item in schema["paths"].items():
        for method in set(item) & set(METHODS):
            operation = item[method]
            assert operation["summary"], (method, path)
            if path not in ("/", "/schema"):
                assert "401" in operation["responses"], (method, path)
            if "requestBody" in operation and path != "/executions/{execution_id}/cancel":
                content = operation["requestBody"]["content"]
                is_bytes = set(content) <= {"application/octet-stream", "application/x-tar"}
                assert is_bytes or "examples" in content["application/json"], (method, path)


def test_every_address_of_the_contract_is_there(schema: Any) -> None:
    assert set(schema["paths"]) >= {
        "/",
        "/sessions",
        "/sessions/{session_id}",
        "/sessions/{session_id}/renew",
        "/sessions/{session_id}/execute",
        "/sessions/{session_id}/executions",
        "/executions/{execution_id}",
        "/executions/{execution_id}/cancel",
        "/sessions/{session_id}/files",
        "/sessions/{session_id}/files/{path}",
        "/sandbox/execute",
        "/languages",
        "/templates",
        "/metrics",
    }


def test_the_documentation_asks_nothing_of_another_host(client: Client) -> None:
    page = client.get("/docs").content.decode()
    assert "swagger-ui-bundle.js" in page
    assert "https://" not in page.replace("https://github.com", "")
    assert "cdn." not in page
    assert '"validatorUrl": null' in page


@pytest.mark.parametrize(
    ("build", "shape", "example"),
    [
        (lambda: bodies.session_body(_session()), answers.SessionAnswer, docs.SESSION_EXAMPLE),
        (lambda: bodies.session_event_body(SessionEvent()), answers.SessionEventAnswer, docs.SESSION_EVENT_EXAMPLE),
        (lambda: bodies.result_body(_execution()), answers.ResultAnswer, docs.RESULT_EXAMPLE),
        (lambda: bodies.execution_body(_execution()), answers.ExecutionAnswer, docs.EXECUTION_EXAMPLE),
        (lambda: bodies.template_body(SandboxTemplate(name="a")), answers.TemplateAnswer, docs.TEMPLATE_EXAMPLE),
    ],
    ids=["session", "event", "result", "execution", "template"],
)
def test_what_is_described_is_what_is_built(build: Callable[[], Any], shape: Any, example: Any) -> None:
    assert list(build()) == list(shape().fields) == list(example)


def _session() -> Session:
    return Session(template=SandboxTemplate(name="a"), idle_timeout_s=1, max_lifetime_s=1, execution_timeout_s=1)


def _execution() -> Execution:
    return Execution(session=_session(), timeout_s=1)


def test_the_requests_of_the_examples_work(api: Caller, schema: Any, session: Session) -> None:
    for path in ("/sessions", "/sessions/{session_id}/execute", "/sandbox/execute", "/sessions/{session_id}/renew"):
        content = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for name, example in content["examples"].items():
            answer = api.post(path.replace("{session_id}", str(session.pk)), example["value"])
            assert answer.status_code in (200, 201, 202), (path, name, answer.content)
