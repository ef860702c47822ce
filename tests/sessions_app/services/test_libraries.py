"""Libraries of sessions and executions, and the rules about them."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from sessions_app.exceptions import InvalidInput, Unsupported
from sessions_app.models import Execution, LibraryRule, SandboxTemplate, Session
from sessions_app.services.executions import complete_execution, run_once, submit_execution
from sessions_app.services.libraries import check_allowed, name_of
from sessions_app.services.sessions import create_session
from tests.sessions_app.fake_proxy import FakeProxy


def rule(pattern: str, verdict: str = "deny", *, lang: str = "python", note: str = "") -> LibraryRule:
    """Write a rule as an administrator would."""
    made = LibraryRule(lang=lang, pattern=pattern, verdict=verdict, note=note)
    made.full_clean()
    made.save()
    return made


def test_a_session_s_libraries_are_installed_as_it_is_made(owner: User, proxy: FakeProxy) -> None:
    SandboxTemplate.objects.create(name="mine", libraries=["six"])
    session = create_session(owner=owner, actor="api", template="mine", libraries=["requests==2.32.3"])
    session.refresh_from_db()
    assert (session.status, session.libraries) == ("active", ["requests==2.32.3"])
    asked = proxy.made[str(session.pk)]
    assert (asked["libraries"], asked["more_libraries"]) == (["six"], ["requests==2.32.3"])
    execution = submit_execution(session=session, code="1", actor="api")
    complete_execution(execution, actor="api")
    assert proxy.execution(execution).body["libraries"] == []


def test_a_session_whose_libraries_cannot_be_had_is_not_made(owner: User, proxy: FakeProxy) -> None:
    refusal = {"error": "library_error", "detail": "There is no package named nosuch.", "field": "libraries"}
    proxy.failures["POST /sessions"] = httpx.Response(422, json=refusal)
    with pytest.raises(Unsupported, match="nosuch") as caught:
        create_session(owner=owner, actor="api", libraries=["nosuch"])
    assert caught.value.field == "libraries"
    assert Session.objects.get().status == "failed"


@pytest.mark.parametrize("libraries", [["numpy; rm -rf /"], ["a"] * 51])
def test_what_is_no_library_is_refused_before_anything_is_made(
    owner: User, proxy: FakeProxy, libraries: list[str]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        create_session(owner=owner, actor="api", libraries=libraries)
    assert caught.value.field == "libraries"
    assert not Session.objects.exists()
    assert not proxy.requests


@pytest.mark.parametrize(
    ("lang", "library", "name"),
    [
        ("python", "Scikit_Learn[extra]>=1.2,<2", "scikit-learn"),
        ("python", "requests==2.32.3", "requests"),
        ("python", "zope.interface", "zope-interface"),
        ("javascript", "lodash@4.17.21", "lodash"),
        ("javascript", "@types/node@20", "@types/node"),
        ("javascript", "@types/node", "@types/node"),
        ("ruby", "rails:7.1", "rails"),
        ("go", "rsc.io/quote/v3@v3.1.0", "rsc.io/quote/v3"),
    ],
)
def test_a_library_has_one_name_whatever_version_is_asked_for(lang: str, library: str, name: str) -> None:
    assert name_of(library, lang=lang) == name


def test_what_is_denied_is_refused_with_its_note(db: None) -> None:
    rule("PyCrypto*", note="It is not maintained.")
    rule("pycrypto", "allow")
    with pytest.raises(Unsupported) as caught:
        check_allowed(["numpy", "pycrypto==2.6"], lang="python")
    assert (caught.value.field, caught.value.code) == ("libraries", "unsupported")
    assert str(caught.value) == "The library numpy is not allowed here. Allowed are: pycrypto."
    with pytest.raises(Unsupported, match="pycrypto is not allowed here: It is not maintained"):
        check_allowed(["pycrypto==2.6"], lang="python")


def test_once_something_is_allowed_nothing_else_of_its_language_is(db: None) -> None:
    assert check_allowed(["numpy"], lang="python") == ["numpy"]
    rule("numpy", "allow")
    rule("pandas*", "allow")
    wanted = ["NumPy>=1", "pandas-stubs"]
    assert check_allowed(wanted, lang="python") == wanted
    assert check_allowed(["lodash"], lang="javascript") == ["lodash"]
    with pytest.raises(Unsupported, match=r"requests is not allowed.*numpy, pandas"):
        check_allowed(["numpy", "requests"], lang="python")


def test_rules_hold_for_sessions_executions_and_one_shots_but_not_for_templates(
    owner: User, make_session: Callable[..., Session], proxy: FakeProxy
) -> None:
    rule("requests", note="No network here")
    SandboxTemplate.objects.create(name="mine", libraries=["requests"])
    session = make_session(template="mine")
    asked = len(proxy.requests)
    with pytest.raises(Unsupported, match="No network here"):
        submit_execution(session=session, code="1", libraries=["requests"], actor="api")
    with pytest.raises(Unsupported, match="No network here"):
        create_session(owner=owner, actor="api", libraries=["requests"])
    with pytest.raises(Unsupported, match="No network here"):
        run_once(owner=owner, code="1", libraries=["requests"], actor="api")
    assert (Session.objects.count(), Execution.objects.count(), len(proxy.requests)) == (1, 0, asked)


@pytest.mark.parametrize("pattern", ["", "numpy==1", "numpy ; x", "-r", "[ab]"])
def test_a_rule_about_what_is_no_name_is_refused(db: None, pattern: str) -> None:
    with pytest.raises(ValidationError) as caught:
        rule(pattern)
    assert "pattern" in caught.value.message_dict


def test_libraries_that_nobody_asks_for_cost_no_statement(
    owner: User, session: Session, proxy: FakeProxy, statements: Callable[[int], object]
) -> None:
    with statements(0):  # type: ignore[attr-defined]
        check_allowed([], lang="python")
