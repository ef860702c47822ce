"""LibraryRule: which libraries callers may name."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError
from django.db import models

PATTERN = re.compile(r"@?[A-Za-z0-9*?][A-Za-z0-9._*?/-]*")


class LibraryRule(models.Model):
    """Allow or deny a library by its name; what is denied stays denied, whatever else allows it.

    As soon as a language has a rule that allows something, nothing else of that language is allowed.
    """

    class Lang(models.TextChoices):
        PYTHON = "python", "Python"
        JAVASCRIPT = "javascript", "JavaScript"
        GO = "go", "Go"
        R = "r", "R"
        RUBY = "ruby", "Ruby"

    class Verdict(models.TextChoices):
        ALLOW = "allow", "Allow"
        DENY = "deny", "Deny"

    lang = models.CharField("language", max_length=32, choices=Lang, default=Lang.PYTHON)
    pattern = models.CharField(
        max_length=200, help_text="A library's name, without a version; * and ? stand for any characters."
    )
    verdict = models.CharField(max_length=8, choices=Verdict, default=Verdict.DENY)
    note = models.CharField(max_length=500, blank=True, help_text="Why; whoever is refused reads it.")

    class Meta:
        ordering = ["lang", "pattern"]
        constraints = [
            models.UniqueConstraint(fields=["lang", "pattern"], name="library_rule_one_a_pattern"),
            models.CheckConstraint(
                condition=models.Q(verdict__in=["allow", "deny"]), name="library_rule_verdict_is_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_verdict_display()} {self.pattern} ({self.lang})"

    def clean(self) -> None:
        """Refuse what cannot be a library's name."""
        if not PATTERN.fullmatch(self.pattern):
            raise ValidationError({"pattern": "This is not a library's name, with or without * and ?."})
