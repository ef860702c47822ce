"""Templates and policies: what an administrator may write."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from sessions_app.models import SandboxTemplate, TimeoutPolicy


def test_an_installation_begins_with_a_policy_and_a_template_a_language(db: None) -> None:
    policy = TimeoutPolicy.objects.get()
    assert (policy.name, policy.is_default) == ("standard", True)
    assert (policy.idle_timeout_default_s, policy.idle_timeout_max_s) == (300, 3600)
    templates = {template.name: template for template in SandboxTemplate.objects.all()}
    assert sorted(templates) == ["bash", "cpp", "go", "java", "javascript", "python", "python-data", "r", "ruby"]
    python, data = templates["python"], templates["python-data"]
    assert (python.name, python.is_default, python.warm_pool_size > 0) == ("python", True, True)
    assert (data.name, data.is_default, data.preload) == (
        "python-data",
        False,
        ["numpy", "pandas", "matplotlib.pyplot"],
    )
    assert all(
        name == template.lang and template.is_default for name, template in templates.items() if template != data
    )
    for row in (policy, *templates.values()):
        row.full_clean()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"preload": "numpy"}, "preload"),
        ({"libraries": [1]}, "libraries"),
        ({"libraries": ["numpy; rm -rf /"]}, "libraries"),
        ({"env": {"A B": "1"}}, "env"),
        ({"env": {"A": 1}}, "env"),
        ({"is_default": True, "is_enabled": False, "lang": "ruby"}, "is_enabled"),
        ({"memory_bytes": 1}, "memory_bytes"),
    ],
)
def test_a_template_that_could_not_work_is_refused(db: None, values: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SandboxTemplate(**{"name": "mine", **values}).full_clean()
    assert field in caught.value.message_dict


def test_a_language_has_one_default(db: None) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        SandboxTemplate.objects.create(name="other", lang="python", is_default=True)
    SandboxTemplate.objects.create(name="perl", lang="perl", is_default=True)


def test_a_default_above_its_ceiling_is_refused_by_form_and_database(db: None) -> None:
    policy = TimeoutPolicy(name="mine", idle_timeout_default_s=10, idle_timeout_max_s=5)
    with pytest.raises(ValidationError) as caught:
        policy.full_clean()
    assert "idle_timeout_default_s" in caught.value.message_dict
    with pytest.raises(IntegrityError), transaction.atomic():
        policy.save()


def test_there_is_one_default_policy(db: None) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        TimeoutPolicy.objects.create(name="mine", is_default=True)
