"""Which libraries callers may name, as the administrators' rules say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from sessions_app.exceptions import Unsupported
from sessions_app.models import LibraryRule

VERSION = re.compile(r"(?<!^)[\[\s<>=!~^@:,].*", re.DOTALL)


def check_allowed(libraries: Sequence[str], *, lang: str) -> list[str]:
    """Return the requirements if the rules allow them all; raise Unsupported with the first rule's note otherwise.

    Rules are about what a caller names: what a library itself needs comes with it.
    """
    wanted = list(libraries)
    if not wanted:
        return wanted
    rules = list(LibraryRule.objects.filter(lang=lang))
    denied = [rule for rule in rules if rule.verdict == LibraryRule.Verdict.DENY]
    allowed = [rule for rule in rules if rule.verdict == LibraryRule.Verdict.ALLOW]
    for library in wanted:
        name = name_of(library, lang=lang)
        if rule := _first(denied, name):
            raise Unsupported("libraries", f"The library {name} is not allowed here{_because(rule)}.")
        if allowed and not _first(allowed, name):
            known = ", ".join(rule.pattern for rule in allowed[:20])
            raise Unsupported("libraries", f"The library {name} is not allowed here. Allowed are: {known}.")
    return wanted


def name_of(library: str, *, lang: str) -> str:
    """Return a requirement's name in its one spelling, without extras and version."""
    return _spelled(VERSION.sub("", library.strip()), lang)


def _first(rules: Iterable[LibraryRule], name: str) -> LibraryRule | None:
    return next((rule for rule in rules if fnmatchcase(name, _spelled(rule.pattern, rule.lang))), None)


def _spelled(name: str, lang: str) -> str:
    # Python's packages have many spellings, npm's one.
    return re.sub(r"[-_.]+", "-", name).lower() if lang == LibraryRule.Lang.PYTHON else name


def _because(rule: LibraryRule) -> str:
    return f": {rule.note.rstrip('.')}" if rule.note else ""
