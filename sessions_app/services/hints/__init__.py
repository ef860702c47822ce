"""What to do about an execution that failed: a sentence or two for whoever wrote the code, often a language model.

Everything said is a fact of the execution: its status, its limits, the words of its standard error. Where nothing is
known there is no hint; a wrong one costs more than none.
"""

from __future__ import annotations

from sessions_app.services.hints.facts import Facts, facts_of
from sessions_app.services.hints.rules import RULES

__all__ = ["Facts", "facts_of", "hint_for"]

# An interpreter's last words are at the end; what stands before may be about something that was dealt with.
TAIL_CHARS = 8192
MAX_HINT_CHARS = 600
TRACEBACK = "Traceback (most recent call last):"


def hint_for(facts: Facts) -> str:
    """Return what to do about an execution's end; empty when nothing is known, or nothing is to be done."""
    rules = RULES.get(facts.status, ())
    said = last_words(facts)
    found = next((hint for rule in rules if (hint := rule(facts, said))), "")
    return found[:MAX_HINT_CHARS]


def last_words(facts: Facts) -> str:
    """Return the end of the standard error: of Python only the last traceback, which is what the program died of."""
    tail = facts.stderr[-TAIL_CHARS:]
    start = tail.rfind(TRACEBACK) if facts.lang == "python" else -1
    return tail[start:] if start >= 0 else tail
